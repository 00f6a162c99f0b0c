"""Messages to and from a process on its standard streams, each of them within a bound of time (`MessagePipe`)."""

import json
import os
import select
import subprocess
import time
from typing import Any

from plumbob.reward.programs.function_program import HEADER

MAX_MESSAGE_BYTES = 64 * 2**20
"""Of one that is read: what is larger is no message."""

READ_BYTES = 2**16


class PipeClosed(Exception):  # noqa: N818 - said by its owner, who knows why
    """The process has closed its side, or writes what is no message."""


class MessagePipe:
    """JSON after its length, both ways.

    Args:
        process: begun with pipes for its input and its output, which are this object's from now on.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None and process.stdout is not None
        self._into, self._out = process.stdin.fileno(), process.stdout.fileno()
        os.set_blocking(self._into, False)
        os.set_blocking(self._out, False)
        self._received = bytearray()

    def send(self, message: Any, deadline: float) -> None:
        """Raises TimeoutError at the deadline, by the monotonic clock, and PipeClosed."""
        content = json.dumps(message, default=str).encode()
        rest = memoryview(HEADER.pack(len(content)) + content)
        while rest:
            _wait(self._into, select.POLLOUT, deadline)
            try:
                rest = rest[os.write(self._into, rest) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise PipeClosed from error

    def receive(self, deadline: float) -> dict[str, Any]:
        """The next message. Raises TimeoutError at the deadline and PipeClosed."""
        (size,) = HEADER.unpack(self._take(HEADER.size, deadline))
        if size > MAX_MESSAGE_BYTES:
            raise PipeClosed
        try:
            message: dict[str, Any] = json.loads(self._take(size, deadline))
        except ValueError as error:
            raise PipeClosed from error
        return message

    def _take(self, size: int, deadline: float) -> bytes:
        while len(self._received) < size:
            _wait(self._out, select.POLLIN, deadline)
            try:
                content = os.read(self._out, READ_BYTES)
            except BlockingIOError:
                continue
            if not content:
                raise PipeClosed
            self._received += content
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken


def _wait(file: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(file, event)
    if not poll.poll(max(deadline - time.monotonic(), 0.0) * 1000):
        raise TimeoutError
