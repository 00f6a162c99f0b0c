"""Messages to and from a process, each of them bounded in time and size (`MessagePipe`)."""

import json
import os
import select
import time
from typing import Any

from plumbob.core.programs.users_code import HEADER

MAX_MESSAGE_BYTES = 64 * 2**20
"""Of one that is read: what is larger is no message."""

READ_BYTES = 2**16


class PipeClosed(Exception):  # noqa: N818 - said by its owner, who knows why
    """The process has closed its side, or writes what is no message: says then what it wrote."""


class MessagePipe:
    """JSON after its length, both ways.

    Args:
        into, out: files, the same for a socket, which are this object's from now on; it does not close them.
        max_bytes: of a message that is read.
    """

    def __init__(self, into: int, out: int, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._into, self._out, self._max_bytes = into, out, max_bytes
        os.set_blocking(into, False)
        os.set_blocking(out, False)
        self._received, self._unsent = bytearray(), bytearray()

    def send(self, message: Any, deadline: float) -> None:
        """Raises TimeoutError at the deadline, by the monotonic clock, and PipeClosed."""
        self.begin_sending(message)
        while not self.is_sent():
            _wait(self._into, select.POLLOUT, deadline)

    def receive(self, deadline: float) -> dict[str, Any]:
        """The next message. Raises TimeoutError at the deadline and PipeClosed."""
        while (message := self.take()) is None:
            _wait(self._out, select.POLLIN, deadline)
        return message

    # ------------------------------------------------------------------------------------------------ without waiting

    def begin_sending(self, message: Any) -> None:
        content = json.dumps(message, default=str).encode()
        self._unsent += HEADER.pack(len(content)) + content

    def is_sent(self) -> bool:
        """Whether all is, once as much is as goes at once. Raises PipeClosed."""
        try:
            while self._unsent:
                del self._unsent[: os.write(self._into, self._unsent)]
        except BlockingIOError:
            return False
        except OSError as error:
            raise PipeClosed from error
        return True

    @property
    def is_sending(self) -> bool:
        """Whether a part of what was begun waits for room."""
        return bool(self._unsent)

    def take(self) -> dict[str, Any] | None:
        """The next message where it is all there. Raises PipeClosed."""
        while (message := self._message()) is None:
            try:
                content = os.read(self._out, READ_BYTES)
            except BlockingIOError:
                return None
            except OSError as error:
                raise PipeClosed from error
            if not content:
                raise PipeClosed
            self._received += content
        return message

    def _message(self) -> dict[str, Any] | None:
        if len(self._received) < HEADER.size:
            return None
        (size,) = HEADER.unpack_from(self._received)
        if size > self._max_bytes:
            raise PipeClosed(f"a message of more than {self._max_bytes / 2**20:g} MiB")
        end = HEADER.size + size
        if len(self._received) < end:
            return None
        content = bytes(self._received[HEADER.size : end])
        del self._received[:end]
        try:
            message = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise PipeClosed("what is no message") from error
        if not isinstance(message, dict):
            raise PipeClosed("what is no message")
        return message


def _wait(file: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(file, event)
    if not poll.poll(max(deadline - time.monotonic(), 0.0) * 1000):
        raise TimeoutError
