"""A file of JSON, one object a line, that survives a kill: whole lines alone count, and it can be cut back."""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from plumbob.core.atomic_files import flush
from plumbob.core.disk_errors import naming_file, replace_text


class JsonLines:
    """Appends to a file, which a torn last line is taken off first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._rewritten(_whole_lines(path))

    def append(self, *contents: Mapping[str, Any]) -> None:
        """A line for each; they are on the disk before this returns. No value may be infinite or NaN."""
        with naming_file(self._path):
            self._file.write("".join(json.dumps(content, allow_nan=False) + "\n" for content in contents))
            self._file.flush()
            os.fsync(self._file.fileno())

    def keep(self, is_kept: Callable[[Mapping[str, Any]], bool]) -> None:
        """Drop the lines that `is_kept` is False of."""
        self._file.close()
        self._file = self._rewritten([line for line in _whole_lines(self._path) if is_kept(json.loads(line))])

    def close(self) -> None:
        with naming_file(self._path):  # A write that failed is tried again.
            self._file.close()

    def _rewritten(self, lines: list[str]) -> IO[str]:
        """Replace the file, for good: no power loss may bring back one that nothing is appended to any more."""
        replace_text(self._path, "".join(lines))
        flush(self._path.parent)
        return self._path.open("a", encoding="utf-8")


def strict(value: Any) -> Any:
    """The same with null for each number that JSON has no form for: infinities and NaN."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {str(key): strict(inner) for key, inner in value.items()}
        case list() | tuple():
            return [strict(inner) for inner in value]
        case _:
            return value


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; none where there is no file."""
    return [json.loads(line) for line in _whole_lines(path)]


def _whole_lines(path: Path) -> list[str]:
    """A process killed while it writes leaves a last line without an end."""
    if not path.exists():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
