"""Rows of CSV and TSV files, whose cells are all text; and the values that some of them stand for."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plumbob.data.reading.field_values import Fields, shown
from plumbob.data.reading.file_formats.bounded_files import MAX_LINE_BYTES, lines_of
from plumbob.data.reading.messages import CONVERSATIONS, parsed_json
from plumbob.data.records import RowError

NO_TEXTS = ("label", "score", "rating", "margin", "ranks", "scores", "answers", *CONVERSATIONS)
"""Fields that are numbers, true or false, or lists: where a file has text alone they are written as in JSON."""


PYTHON_MESSAGES = tuple(f"[{{'{key}':" for key in ("role", "from", "content", "value"))
"""How messages begin that were written by `str`, as pandas' `to_csv` writes lists."""

OTHER_SEPARATORS = ";\t|,"
"""What stands between cells in files of other kinds: in the only name of a header it is no part of the name."""


def delimited_values(file: Path, delimiter: str) -> Iterator[dict[str, str] | str]:
    """Column -> cell, row by row, or what is wrong with the row. Raises ValueError for a header that is none."""
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader(_text_lines(file), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise ValueError(f"its first line names the columns, and {_twice(header)!r} stands there twice")
        other = next((one for one in OTHER_SEPARATORS if len(header) == 1 and one in header[0]), None)
        if other is not None:
            raise ValueError(
                f"its first line names one column, {header[0][:60]!r}: cells stand between commas (.csv) or tabs "
                f"(.tsv), and not between {other!r}"
            )
        for cells in reader:
            if not cells:
                continue
            if len(cells) == len(header):
                yield dict(zip(header, cells, strict=True))
            else:
                yield f"expected {len(header)} cells, one a column of the first line, found {len(cells)}"
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def typed(fields: Fields) -> dict[str, Any]:
    """The fields of a row of text: those that are no texts by what they say, where that is JSON.

    Raises:
        RowError: messages stand there in another form, and would be taken for text.
    """
    return {name: _value(value) if name in NO_TEXTS else _messages(name, value) for name, value in fields.items()}


def _value(text: Any) -> Any:
    value = parsed_json(text.strip().lower() if text.strip() in ("True", "False", "TRUE", "FALSE") else text)
    return text if value is None else value


def _messages(name: str, text: str) -> Any:
    """A prompt or a response that is a list of messages; any other text is given back as it is."""
    cell = text.strip()
    if name == "text" or not cell.startswith("["):
        return text
    value = parsed_json(cell)
    if (
        isinstance(value, list)
        and value
        and all(isinstance(one, dict) and ("role" in one or "from" in one) for one in value)
    ):
        return value
    if cell.startswith(PYTHON_MESSAGES) and cell.endswith("}]"):
        raise RowError(f"'{name}': expected messages as JSON, found {shown(cell)}; write them with json.dumps")
    return text


def _text_lines(file: Path) -> Iterator[str]:
    for number, line in enumerate(lines_of(file), 1):
        yield line.decode("utf-8-sig" if number == 1 else "utf-8")


def _twice(names: list[str]) -> str:
    return next(name for name in names if names.count(name) > 1)
