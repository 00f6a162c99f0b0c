"""A file of JSON lines that another process appends to, read from where one stopped (GrowingLines)."""

import json
import os
from pathlib import Path
from typing import Any

MAX_TAIL_BYTES = 262_144
"""At the end of a file, where its last line is looked for."""

NUM_KNOWN = 64
"""Bytes before the place where reading stopped, by which the file is known again."""


class GrowingLines:
    """Gives each whole line once, beginning with the last one that is there; what is half written waits.

    A resumed run drops the steps past its checkpoint, and writes the file anew for it: where the lines before the place
    are not those that were read, reading continues with the last one, as at the beginning. Lines that are no JSON
    objects are passed over.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = -1
        self._known = b""

    def new(self) -> list[dict[str, Any]]:
        """The lines since the last call; none where there is no file."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                if not self._is_known(file, size):
                    self._offset = _last_line(file, size)
                file.seek(self._offset)
                content = file.read()
                end = content.rfind(b"\n") + 1
                self._offset += end
                start = max(self._offset - NUM_KNOWN, 0)
                file.seek(start)
                self._known = file.read(self._offset - start)
        except OSError:
            return []
        return [line for line in map(_parsed, content[:end].splitlines()) if line]

    def _is_known(self, file: Any, size: int) -> bool:
        if self._offset < 0 or size < self._offset:
            return False
        file.seek(self._offset - len(self._known))
        return bool(file.read(len(self._known)) == self._known)


def _last_line(file: Any, size: int) -> int:
    """Where the last whole line begins; the end of the file where it has none."""
    start = max(size - MAX_TAIL_BYTES, 0)
    file.seek(start)
    tail: bytes = file.read()
    end = tail.rfind(b"\n")
    if end < 0:
        return size if start else 0
    return start + tail.rfind(b"\n", 0, end) + 1


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
