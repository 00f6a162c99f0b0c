"""The rows of a file, sorted by what they are good for: records, and those that are left out, counted and named."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from plumbob.configs.settings.data import ReadingSettings
from plumbob.core.errors import UserError
from plumbob.data.reading.field_values import Fields
from plumbob.data.reading.fields import check_columns, rename
from plumbob.data.reading.file_formats.delimited_text import typed
from plumbob.data.reading.file_formats.formats import FileRow, iterate_rows, list_files
from plumbob.data.reading.used_columns import (
    BlankColumns,
    LeftOutRows,
    TemplateUse,
    UsedColumns,
    spelling_note,
)
from plumbob.data.records import RowError
from plumbob.data.texts.chat_text import Render, RowRender
from plumbob.data.texts.written_texts import written_texts

T = TypeVar("T")


@dataclass(frozen=True)
class ReadRecords(Generic[T]):
    """What a file held.

    Attributes:
        records: in the order of the file.
        num_rows: rows in the file; all that follow add up to it together with the records.
        num_skipped_malformed: rows that could not be understood.
        num_empty: rows whose prompt, response or text is blank.
        num_duplicate: prompts that stood in an earlier row, and pairs whose two responses are the same.
        notes: sentences for a person about what was left out, columns too.
    """

    records: tuple[T, ...]
    num_rows: int
    num_skipped_malformed: int
    num_empty: int
    num_duplicate: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class RecordKind(Generic[T]):
    """How a row becomes a record of one kind, and when it is none.

    Attributes:
        parse: fields and how their messages become text -> record; RowError on a malformed row.
        texts: the record's parts, none of which may be blank.
        is_duplicate: whether a record with nothing blank in it is one too many; asked once a record, in order.
        duplicate_reason: what is reported of those that are.
        num_learnt: how many turns of the assistant's a record has that are learnt.
        with_row: what keeps the whole row in the record; None keeps it nowhere.
    """

    parse: Callable[[Fields, RowRender], T]
    texts: Callable[[T], tuple[str, ...]]
    is_duplicate: Callable[[T], bool] = lambda _: False
    duplicate_reason: str = ""
    num_learnt: Callable[[T], int] = lambda _: 1
    with_row: Callable[[T, dict[str, Any]], T] | None = None


def read_records(path: str, rules: ReadingSettings, render: Render, kind: RecordKind[T]) -> ReadRecords[T]:
    """Read all rows of a file.

    Raises:
        UserError: it is missing, empty or damaged, rows are malformed that shall not be skipped, or none can be used.
    """
    rows = _SortedRows(path, rules, render, kind)
    for row in iterate_rows(path):
        rows.take(row)
    return rows.result()


class _SortedRows(Generic[T]):
    """Those of a file that have been read."""

    def __init__(self, path: str, rules: ReadingSettings, render: Render, kind: RecordKind[T]) -> None:
        check_columns(rules.columns)
        self._path, self._rules, self._kind = path, rules, kind
        self._is_one_file = list_files(path) == [Path(path).expanduser()]
        self._columns, self._blank = UsedColumns(rules.columns), BlankColumns(rules.columns)
        self._written = written_texts(render, rules)
        self._template_use = TemplateUse(self._written)
        self._records: list[T] = []
        self._left_out, self._spelling, self._num_rows = LeftOutRows(), list[str](), 0

    def take(self, row: FileRow) -> None:
        self._num_rows += 1
        label = f"row {row.number}" if self._is_one_file else f"{row.file} row {row.number}"
        self._template_use.begin_row()
        try:
            record = self._record_of(row, label)
        except RowError as error:
            self._left_out.malformed.append(f"{label}: {error}")
            return
        except UserError as error:
            raise UserError(f"{self._path}: {label}: {error}") from None
        if not all(text.strip() for text in self._kind.texts(record)):
            self._left_out.empty.append(label)
        elif self._kind.is_duplicate(record):
            self._left_out.duplicate.append(label)
        else:
            self._records.append(record)
            self._template_use.end_row(self._kind.num_learnt(record))

    def _record_of(self, row: FileRow, label: str) -> T:
        if row.fault:
            raise RowError(row.fault)
        fields: Fields = rename(self._blank.filled(row.fields, row.nulls, label), self._rules.columns)
        fields = typed(fields) if row.is_text else fields
        marked = self._written.marked_row(fields)
        record = self._kind.parse(self._columns.watch(row.fields, marked), self._template_use)
        if self._kind.with_row is not None:
            record = self._kind.with_row(record, self._columns.take_all(fields))
        if marked != fields:
            self._spelling.append(label)
        return record

    def result(self) -> ReadRecords[T]:
        left_out, num_rows = self._left_out, self._num_rows
        left_out.check(self._path, self._rules, num_rows)
        notes = left_out.notes(self._path, num_rows, self._kind.duplicate_reason)
        if not self._records:
            raise UserError(f"{self._path}: no row can be used. {' '.join(notes)}")
        found = (
            self._columns.note(),
            self._blank.note(),
            *self._template_use.notes(num_rows),
            self._written.template_note(self._rules),
            spelling_note(self._spelling, num_rows),
        )
        notes += [f"{self._path}: {note}" for note in found if note is not None]
        num_left_out = len(left_out.malformed), len(left_out.empty), len(left_out.duplicate)
        return ReadRecords(tuple(self._records), num_rows, *num_left_out, tuple(notes))
