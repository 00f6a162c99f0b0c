"""Messages between two sandboxes over a socket: JSON after its length. Imports little, as it is read in a sandbox."""

import json
import os
import struct
from typing import Any

from plumbob.reward.programs.inside.plain_values import MAX_BYTES

HEADER = struct.Struct(">I")


class ChannelClosed(Exception):  # noqa: N818 - said by whoever knows what it means
    """The other side has gone, or writes what is no message."""


def send(channel: int, message: Any) -> None:
    """Raises ChannelClosed, and ValueError where the message is too long."""
    content = json.dumps(message).encode()
    if len(content) > MAX_BYTES:
        raise ValueError(f"a value of more than {MAX_BYTES // 2**20} MiB")
    rest = memoryview(HEADER.pack(len(content)) + content)
    try:
        while rest:
            rest = rest[os.write(channel, rest) :]
    except OSError as error:
        raise ChannelClosed from error


def receive(channel: int) -> Any:
    """The next message. Raises ChannelClosed."""
    (size,) = HEADER.unpack(_taken(channel, HEADER.size))
    if size > MAX_BYTES:
        raise ChannelClosed
    try:
        return json.loads(_taken(channel, size))
    except (ValueError, RecursionError) as error:
        raise ChannelClosed from error


def _taken(channel: int, size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        try:
            piece = os.read(channel, min(size - len(content), 2**16))
        except OSError as error:
            raise ChannelClosed from error
        if not piece:
            raise ChannelClosed
        content += piece
    return bytes(content)
