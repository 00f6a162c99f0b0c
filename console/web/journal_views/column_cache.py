"""Columns of Parquet files, or of steps in several, as arrays, kept while they stay as they are (`ColumnCache`)."""

import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from plumbob.rollout.journal_files import files_of

MAX_BYTES = 512 * 2**20
"""Of all that is kept."""

MAX_FILE_BYTES = 2**30
"""A larger file is no step of a journal, and is shown as damaged."""

MAX_PARTS = 4096
"""Files of a step; what is past them is not shown."""

FINISH_REASONS = ("stop", "length", "partial")
VERSIONS = "versions.list.element"

T = TypeVar("T")


@dataclass(frozen=True)
class FlatColumns:
    """What the list of responses is counted and filtered by, of one step's file of N rows.

    Attributes:
        scores: float64 [N].
        finish: int8 [N], of FINISH_REASONS; -1 where it is none of them.
        dropped: bool [N].
        versions: the lowest and highest policy version of its tokens, by the statistics of its row groups; None where
            they do not say.
    """

    scores: NDArray[np.float64]
    finish: NDArray[np.int8]
    dropped: NDArray[np.bool_]
    versions: tuple[int, int] | None


@dataclass(frozen=True)
class TokenCounts:
    """Of one step's file: int64 [N] each. The versions are -1 where a response has no token of the policy's."""

    lengths: NDArray[np.int64]
    version_min: NDArray[np.int64]
    version_max: NDArray[np.int64]


class ColumnCache:
    """Reads a file's columns once, and forgets what was not asked for the longest; asked from several threads."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[Path, str], tuple[tuple[int, int], Any, int]] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()

    def flat(self, path: Path) -> FlatColumns | None:
        """None of a file that is damaged, here as below."""
        return self._of(path, "flat", _read_flat, lambda found: found.scores.nbytes + 2 * len(found.scores))

    def token_counts(self, path: Path) -> TokenCounts | None:
        return self._of(path, "tokens", _read_token_counts, lambda found: 3 * found.lengths.nbytes)

    def rewards(self, path: Path) -> dict[str, NDArray[np.float64]] | None:
        """Part -> its rewards, float64 [N], NaN where a response has none."""
        return self._of(path, "rewards", _read_rewards, lambda found: sum(part.nbytes for part in found.values()))

    def table(self, path: Path) -> pa.Table | None:
        """All columns of the file."""
        return self._of(path, "table", lambda file: file.read(), lambda found: found.nbytes)

    def columns(self, path: Path, names: Sequence[str]) -> pa.Table | None:
        """Some columns, which are not kept; of the whole table where that is."""
        with self._lock:
            known = self._kept.get((path, "table"))
        if known is not None and known[0] == _signature(path):
            return known[1].select([name for name in names if name in known[1].schema.names])
        return _read(path, lambda file: file.read([name for name in names if name in file.names]))

    def _of(self, path: Path, kind: str, read: Callable[["StepTable"], T], num_bytes: Callable[[T], int]) -> T | None:
        signature = _signature(path)
        if signature is None:
            return None
        with self._lock:
            known = self._kept.get((path, kind))
            if known is not None and known[0] == signature:
                self._kept.move_to_end((path, kind))
                return known[1]
        found = _read(path, read)
        size = 0 if found is None else num_bytes(found)
        with self._lock:
            before = self._kept.pop((path, kind), None)
            self._num_bytes += size - (0 if before is None else before[2])
            self._kept[path, kind] = signature, found, size
            while self._num_bytes > self._max_bytes and len(self._kept) > 1:
                self._num_bytes -= self._kept.popitem(last=False)[1][2]
        return found


def _signature(path: Path) -> tuple[int, int] | None:
    """When what is there was last written, and its size; None where it is no table."""
    try:
        found = [file.lstat() if file != path else file.stat() for file in files_of(path)[:MAX_PARTS]]
    except OSError:
        return None
    if not found or not all(stat.S_ISREG(file.st_mode) for file in found):
        return None
    return max(file.st_mtime_ns for file in found), sum(file.st_size for file in found)


def _read(path: Path, read: Callable[["StepTable"], T]) -> T | None:
    try:
        signature = _signature(path)
        if signature is None or signature[1] > MAX_FILE_BYTES:
            return None
        with StepTable(files_of(path)[:MAX_PARTS]) as table:
            return read(table)
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, AttributeError, MemoryError):
        return None  # Not the table of a journal, whatever pyarrow says of it.


class StepTable:
    """The files of one step, read as one. Used as a context, which closes them."""

    def __init__(self, paths: Sequence[Path]) -> None:
        with ExitStack() as opened:
            self._files = [opened.enter_context(pq.ParquetFile(path)) for path in paths]
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def names(self) -> list[str]:
        """Of its columns."""
        return list(self._files[0].schema_arrow.names)

    @property
    def metadata(self) -> list[pq.FileMetaData]:
        """Of each file."""
        return [file.metadata for file in self._files]

    def read(self, names: Sequence[str] | None = None) -> pa.Table:
        """These columns, or all."""
        columns = None if names is None else list(names)
        tables = [file.read(columns, use_threads=False) for file in self._files]
        return tables[0] if len(tables) == 1 else pa.concat_tables(tables).combine_chunks()


def _read_flat(file: StepTable) -> FlatColumns:
    table = file.read(["score", "finish_reason", "dropped"])
    finish = pc.fill_null(pc.index_in(table["finish_reason"], pa.array(FINISH_REASONS)), -1)
    return FlatColumns(
        pc.fill_null(table["score"], float("nan")).to_numpy().astype(np.float64),
        finish.to_numpy().astype(np.int8),
        pc.is_valid(table["dropped"]).to_numpy(),
        _version_bounds(file.metadata),
    )


def _version_bounds(files: Sequence[pq.FileMetaData]) -> tuple[int, int] | None:
    low, high = [], []
    for metadata in files:
        names = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
        if VERSIONS not in names:
            return None
        for group in range(metadata.num_row_groups):
            statistics = metadata.row_group(group).column(names.index(VERSIONS)).statistics
            if statistics is None or not statistics.has_min_max:
                return None
            low.append(int(statistics.min))
            high.append(int(statistics.max))
    return (max(min(low), 0), max(high)) if low else None


def _read_token_counts(file: StepTable) -> TokenCounts:
    column = file.read(["versions"])["versions"].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    versions = column.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    has_tokens, starts = lengths > 0, np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    lowest, highest = np.full(len(lengths), -1), np.full(len(lengths), -1)
    if has_tokens.any():
        rows = starts[has_tokens]
        written = np.where(versions < 0, np.iinfo(np.int64).max, versions)
        found = np.minimum.reduceat(written, rows)
        lowest[has_tokens] = np.where(found == np.iinfo(np.int64).max, -1, found)
        highest[has_tokens] = np.maximum.reduceat(versions, rows)
    return TokenCounts(lengths, lowest, highest)


def _read_rewards(file: StepTable) -> dict[str, NDArray[np.float64]]:
    column = file.read(["rewards"])["rewards"].combine_chunks()
    lengths = np.diff(column.offsets.to_numpy())
    rows = np.repeat(np.arange(len(column)), lengths)
    first = column.offsets[0].as_py() if len(column.offsets) else 0
    keys = column.keys.slice(first, len(rows)).dictionary_encode()
    values = pc.fill_null(column.items.slice(first, len(rows)), float("nan")).to_numpy(zero_copy_only=False)
    codes = keys.indices.to_numpy(zero_copy_only=False)
    found = {}
    for code, name in enumerate(keys.dictionary.to_pylist()):
        part = np.full(len(column), np.nan)
        part[rows[codes == code]] = values[codes == code]
        found[str(name)] = part
    return found


def warm_up() -> None:
    """Have pyarrow import what it does at its first number (pandas, where that is installed) before a page waits."""
    pa.scalar(0)
