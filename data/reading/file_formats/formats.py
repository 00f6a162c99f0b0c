"""Rows out of files: JSONL, JSON, CSV, Parquet, Arrow and plain text, one file, a folder or a glob of them."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from plumbob.core.errors import UserError
from plumbob.core.outside import MAX_JSON_DEPTH, from_outside, is_deeper, reason_of
from plumbob.data.reading.file_formats.arrow_tables import arrow_values, parquet_values
from plumbob.data.reading.file_formats.bounded_files import content_of, lines_of
from plumbob.data.reading.file_formats.delimited_text import delimited_values

# What the `datasets` library keeps beside its Arrow files.
SIDE_FILES = {"state.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json"}


@dataclass(frozen=True)
class FileRow:
    """One row as it stands in its file.

    Attributes:
        file: name of the file.
        number: 1-based; the line in JSONL and text (a document's first), the element or row elsewhere.
        fields: column -> value, null values left out; empty when there is a fault.
        fault: why it cannot be read, or "".
        nulls: the columns that are null.
        is_text: whether its values are text because the file holds no others.
    """

    file: str
    number: int
    fields: dict[str, Any]
    fault: str = ""
    nulls: frozenset[str] = frozenset()
    is_text: bool = False


@dataclass(frozen=True)
class FileFormat:
    """A kind of file.

    Attributes:
        suffix: of its name.
        rows: reads a file; whatever it raises is reported to the user.
        may_be_zipped: whether `rows` also reads it with `.gz` behind its name.
    """

    suffix: str
    rows: Callable[[Path], Iterator[FileRow]]
    may_be_zipped: bool = False


def iterate_rows(path: str) -> Iterator[FileRow]:
    """Rows of all files that `path` names, in the order of their names.

    A file that is missing, empty, unreadable or corrupt raises UserError; a row that is none is yielded with its fault.
    """
    for file in list_files(path):
        num_rows = 0
        fix = f"the file is damaged or of another kind: make it again or rename it; accepted are {ACCEPTED}"
        with from_outside(f"{file}: cannot be read as {_suffix(file)}", fix):
            for row in FORMATS[_suffix(file)].rows(file):
                num_rows += 1
                yield row
        if num_rows == 0:
            raise UserError(f"{file}: holds no rows. Expected at least one record")


def list_files(path: str) -> list[Path]:
    """The files that a path, a folder or a glob names, sorted. Folders below a folder are not searched."""
    with from_outside(f"{path}: cannot be looked for", "give a file, a folder or a glob that may be read"):
        return _found_files(path)


def _found_files(path: str) -> list[Path]:
    given = Path(path).expanduser()
    if given.is_file():
        if not _suffix(given):
            raise UserError(f"{given}: unknown kind of file. Accepted are {ACCEPTED}")
        return [given]
    if given.is_dir():
        return _folder_files(given)
    pattern = str(given.relative_to(given.anchor))
    found = sorted(match for match in Path(given.anchor).glob(pattern) if match.is_file() and _suffix(match))
    if not found:
        is_glob = any(sign in pattern for sign in "*?[")
        what = f"matches no file of a known kind ({ACCEPTED})" if is_glob else "does not exist"
        raise UserError(f"{path}: {what}. Expected a file, a folder or a glob; looked from {Path.cwd()}")
    return found


def _folder_files(folder: Path) -> list[Path]:
    saved = _saved_files(folder)
    if saved is not None:
        return saved
    found = sorted(
        file for file in folder.iterdir() if file.is_file() and _suffix(file) and file.name not in SIDE_FILES
    )
    if not found:
        below = sorted(child.name for child in folder.iterdir() if child.is_dir())
        hint = f" It has the folders {', '.join(below)}: give one of them." if below else ""
        raise UserError(f"{folder}: the folder holds no data files. Expected files of the kinds {ACCEPTED}.{hint}")
    kinds = Counter(_suffix(file) for file in found)
    if len(kinds) > 1:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        raise UserError(
            f"{folder}: the folder holds files of several kinds ({listed}). "
            f"Say which with a glob, such as '{folder}/*{max(kinds, key=lambda kind: kinds[kind])}'"
        )
    return found


def _saved_files(folder: Path) -> list[Path] | None:
    """The files of a dataset that `datasets` saved, as its `state.json` names them; None where that names none.

    What else is there are caches of the same rows, which its `map` and `shuffle` leave.
    """
    state = folder / "state.json"
    if not state.is_file():
        return None
    content = json.loads(content_of(state))
    named = content.get("_data_files") if isinstance(content, dict) else None
    if not isinstance(named, list) or not named:
        return None
    names = [one.get("filename") if isinstance(one, dict) else None for one in named]
    files = [folder / name for name in names if isinstance(name, str) and Path(name).name == name]
    absent = [str(name) for name in names if not (isinstance(name, str) and folder / name in files)]
    absent += [file.name for file in files if not (file.is_file() and _suffix(file))]
    if absent:
        raise UserError(
            f"{folder}: state.json names {absent[0]!r}, which is no data file there: save the dataset again, or give "
            f"its files with a glob, such as '{folder}/*.arrow'"
        )
    return files


def _suffix(file: Path) -> str:
    """The known kind of a file by its name, `.gz` left aside; "" when it is none."""
    zipped = file.suffix.lower() == ".gz"
    suffix = (Path(file.stem).suffix if zipped else file.suffix).lower()
    return suffix if suffix in FORMATS and (FORMATS[suffix].may_be_zipped or not zipped) else ""


def _row(file: Path, number: int, value: object) -> FileRow:
    if not isinstance(value, dict):
        return FileRow(file.name, number, {}, f"expected an object of fields, found {type(value).__name__}")
    if is_deeper(value, MAX_JSON_DEPTH):
        return FileRow(
            file.name, number, {}, f"expected lists and objects at most {MAX_JSON_DEPTH} deep in one another"
        )
    given = {name: field for name, field in value.items() if field is not None}
    return FileRow(file.name, number, given, nulls=frozenset(value.keys() - given.keys()))


def _jsonl_rows(file: Path) -> Iterator[FileRow]:
    for number, line in enumerate(lines_of(file), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError among them
            yield FileRow(file.name, number, {}, f"expected one JSON object a line, found {reason_of(error)}")
            continue
        yield _row(file, number, value)


def _json_rows(file: Path) -> Iterator[FileRow]:
    values = json.loads(content_of(file))
    if not isinstance(values, list):
        raise ValueError(f"expected a list of objects, found {type(values).__name__} (is it .jsonl?)")
    for number, value in enumerate(values, 1):
        yield _row(file, number, value)


def _csv_rows(file: Path, delimiter: str = ",") -> Iterator[FileRow]:
    for number, value in enumerate(delimited_values(file, delimiter), 1):
        if isinstance(value, str):
            yield FileRow(file.name, number, {}, value)
        else:
            yield FileRow(file.name, number, value, is_text=True)


def _text_rows(file: Path) -> Iterator[FileRow]:
    """Documents: runs of lines with something on them; blank lines stand between documents."""
    first, document = 0, list[str]()
    for number, line in enumerate(lines_of(file), 1):
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        if text.strip():
            first = first if document else number
            document.append(text)
        elif document:
            yield FileRow(file.name, first, {"text": "\n".join(document)})
            document = []
    if document:
        yield FileRow(file.name, first, {"text": "\n".join(document)})


def _parquet_rows(file: Path) -> Iterator[FileRow]:
    return (_row(file, number, value) for number, value in enumerate(parquet_values(file), 1))


def _arrow_rows(file: Path) -> Iterator[FileRow]:
    return (_row(file, number, value) for number, value in enumerate(arrow_values(file), 1))


FORMATS = {
    known.suffix: known
    for known in (
        FileFormat(".jsonl", _jsonl_rows, may_be_zipped=True),
        FileFormat(".ndjson", _jsonl_rows, may_be_zipped=True),
        FileFormat(".json", _json_rows, may_be_zipped=True),
        FileFormat(".csv", _csv_rows, may_be_zipped=True),
        FileFormat(".tsv", partial(_csv_rows, delimiter="\t"), may_be_zipped=True),
        FileFormat(".parquet", _parquet_rows),
        FileFormat(".arrow", _arrow_rows),
        FileFormat(".txt", _text_rows, may_be_zipped=True),
    )
}
"""By suffix. Another kind of file is a row more, with its reader above."""

_ZIPPED = ", ".join(f"{known.suffix}.gz" for known in FORMATS.values() if known.may_be_zipped)
ACCEPTED = f"{', '.join(FORMATS)} (and {_ZIPPED})"
