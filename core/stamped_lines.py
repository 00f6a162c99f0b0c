"""A text stream that begins each line with the time at which it was begun (`StampedLines`)."""

import io
import os
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def utc_now() -> str:
    """The time as ISO 8601 has it, in UTC, to the millisecond: `2026-11-29T16:04:12.031Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


class StampedLines(io.TextIOWrapper):
    """Appends to a file. Several threads may write; what cannot be written is lost, and ends nobody's work."""

    def __init__(self, path: Path) -> None:
        unbuffered: Any = path.open("ab", buffering=0)  # What could not be written is not kept to be tried again.
        super().__init__(unbuffered, encoding="utf-8", errors="backslashreplace", write_through=True)
        self._writing = threading.RLock()  # A garbage collection in the middle may print too, in the same thread.
        self._is_at_begin = True

    def write(self, text: str) -> int:
        with self._writing, suppress(OSError, ValueError):  # Full, or closed by now.
            pieces = text.splitlines(keepends=True)
            stamp = f"{utc_now()} "
            begins = [self._is_at_begin, *(piece.endswith("\n") for piece in pieces[:-1])]
            super().write("".join(stamp * begin + piece for begin, piece in zip(begins, pieces, strict=False)))
            if pieces:
                self._is_at_begin = pieces[-1].endswith("\n")
        return len(text)


def sent_to(log: Path) -> StampedLines:
    """Send all that this process prints to a file: what Python prints with stamps, what libraries do as it is."""
    stream = StampedLines(log)
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
    return stream
