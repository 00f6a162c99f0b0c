"""Files of data, opened with a bound on what they become: a small archive can hold more than the memory does."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO

FREE_BYTES = 32 * 2**20
"""What any file may become."""

MAX_EXPANSION = 100
"""And so many times its size: text is packed into a fifth, rarely into a thirtieth."""

FREE_ROWS, ROWS_PER_BYTE = 1_000_000, 64
"""Rows that any file may have, and for each of its bytes: a column of nulls or of one value takes none for a row."""

MAX_LINE_BYTES = 64 * 2**20


class Expansion:
    """Counts what a file becomes. Raises ValueError when it is out of all proportion to its size."""

    def __init__(self, file: Path) -> None:
        size = file.stat().st_size
        self.max_bytes = FREE_BYTES + MAX_EXPANSION * size
        self.max_rows = FREE_ROWS + ROWS_PER_BYTE * size
        self._bytes = self._rows = 0

    def take(self, num_bytes: int, num_rows: int = 0) -> None:
        self._bytes += num_bytes
        self._rows += num_rows
        if self._bytes > self.max_bytes:
            raise ValueError(f"it becomes more than {self.max_bytes / 2**20:,.0f} MiB, {MAX_EXPANSION} times its size")
        if self._rows > self.max_rows:
            raise ValueError(f"it has more than {self.max_rows:,} rows, which so small a file cannot hold")


def lines_of(file: Path) -> Iterator[bytes]:
    """The lines of a file, zipped or plain, with their ends. ValueError when one, or all, are too long."""
    expansion = Expansion(file)
    with _opened(file) as handle:
        while line := handle.readline(MAX_LINE_BYTES + 1):
            if len(line) > MAX_LINE_BYTES:
                raise ValueError(f"a line has more than {MAX_LINE_BYTES // 2**20} MiB")
            expansion.take(len(line))
            yield line


def content_of(file: Path) -> bytes:
    """All of a file, zipped or plain. ValueError when that is too much."""
    expansion = Expansion(file)
    with _opened(file) as handle:
        content = handle.read(expansion.max_bytes + 1)
    expansion.take(len(content))
    return content


def _opened(file: Path) -> IO[bytes]:
    return gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb")  # type: ignore[return-value]
