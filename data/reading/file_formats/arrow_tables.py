"""Rows of Arrow and Parquet files, whose lengths and offsets are checked before a value is read by them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from plumbob.data.reading.file_formats.bounded_files import Expansion

ARROW_FILE_MAGIC = b"ARROW1"
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class UnreadableValue:
    """A value that Python has no form for, such as a date past the year 9999.

    Attributes:
        type: Arrow's name of it.
        value: what can be told of it, so that other values are told apart.
    """

    type: str
    value: str


def parquet_values(file: Path) -> Iterator[Mapping[str, Any]]:
    """Column -> value, row by row. Raises what pyarrow does, and ValueError."""
    with pq.ParquetFile(file) as opened:
        Expansion(file).take(0, opened.metadata.num_rows)
        yield from _values(file, opened.iter_batches(batch_size=ROWS_AT_ONCE))


def arrow_values(file: Path) -> Iterator[Mapping[str, Any]]:
    """As `parquet_values`, of an IPC file or an IPC stream; the `datasets` library writes streams."""
    return _values(file, _arrow_batches(file))


def _arrow_batches(file: Path) -> Iterator[Any]:
    with pa.memory_map(str(file)) as source:
        if source.read(len(ARROW_FILE_MAGIC)) == ARROW_FILE_MAGIC:
            reader = pa.ipc.open_file(source)
            yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            source.seek(0)
            yield from pa.ipc.open_stream(source)


def _values(file: Path, batches: Iterator[Any]) -> Iterator[Mapping[str, Any]]:
    expansion = Expansion(file)
    for batch in batches:
        # Not one offset that a file gives is trusted: reading by a wrong one ends the process.
        batch.validate(full=True)
        expansion.take(0, batch.num_rows)
        names = batch.schema.names
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):
            columns = [_plain(column) for column in batch.slice(start, ROWS_AT_ONCE).columns]
            expansion.take(sum(column.nbytes for column in columns))
            for row in zip(*map(_as_python, columns), strict=True):
                yield dict(zip(names, row, strict=True))


def _plain(column: Any) -> Any:
    """Without a dictionary, which may repeat one long value in every row."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _as_python(column: Any) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
        return values
    except (ValueError, OverflowError, ArithmeticError, pa.ArrowException):
        return [_one(value) for value in column]


def _one(value: Any) -> Any:
    try:
        return value.as_py()
    except (ValueError, OverflowError, ArithmeticError, pa.ArrowException):
        number = getattr(value, "value", None)
        return UnreadableValue(str(value.type), "" if number is None else str(number))
