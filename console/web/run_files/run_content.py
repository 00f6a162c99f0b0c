"""JSON and lines of a run's files as a page may have them: bounded, and whatever is damaged is named, not raised."""

import json
import math
import mmap
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException

MAX_OBJECT_BYTES = 16 * 2**20
MAX_SCANNED_BYTES = 128 * 2**20
"""Of a file in which a few lines are looked for."""
MAX_GROWN_BYTES = 8 * 2**20
"""Of one answer; what is more is asked for by its cursor."""

NUM_CHECKED = 128
"""Bytes before a cursor by which a file is known again."""


@dataclass(frozen=True)
class GrownLines:
    """What a file of lines has more than when it was read before.

    Attributes:
        lines: whole ones, without their ends; one that is half written waits.
        cursor: where the next reading begins.
        was_cut: the file is not the one that was read before: these lines are from its beginning.
        has_more: there are more whole lines than one reading gives.
    """

    lines: tuple[bytes, ...]
    cursor: str
    was_cut: bool
    has_more: bool


def read_grown(path: Path | None, cursor: str, max_bytes: int = MAX_GROWN_BYTES) -> GrownLines:
    """The lines after a cursor: a byte offset with a check of the bytes before it. Raises HTTPException for no cursor.

    A resumed run drops the steps past its checkpoint: the bytes before the cursor are others then, or not there.
    """
    offset, check = _parsed(cursor)
    try:
        if path is None:
            raise FileNotFoundError
        with path.open("rb") as file:
            was_cut = offset > 0 and _check(file.seek(0, 2), file, offset) != check
            start = 0 if was_cut else offset
            file.seek(start)
            content = file.read(max_bytes)
            # A line longer than a reading is no line of a run: it is passed over.
            end = content.rfind(b"\n") + 1 or (len(content) if len(content) == max_bytes else 0)
            size = file.seek(0, 2)
            new = start + end
            return GrownLines(
                tuple(content[:end].splitlines()),
                f"{new}-{_check(size, file, new)}" if new else "",
                was_cut,
                end > 0 and len(content) == max_bytes and new < size,
            )
    except OSError:
        return GrownLines((), "", offset > 0, False)


def _parsed(cursor: str) -> tuple[int, str]:
    offset, _, check = (cursor or "0").partition("-")
    if not offset.isascii() or not offset.isdigit() or len(offset) > 18:
        raise HTTPException(400, "the cursor is none that this server gave: ask without one")
    return int(offset), check


def _check(size: int, file: Any, offset: int) -> str:
    if offset > size:
        return "beyond"
    start = max(offset - NUM_CHECKED, 0)
    file.seek(start)
    return f"{zlib.crc32(file.read(offset - start)):08x}"


def json_lines(lines: Iterable[bytes]) -> tuple[list[dict[str, Any]], int]:
    """The objects of lines of JSON, and how many lines are none."""
    found, num_damaged = [], 0
    for line in lines:
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, dict):
            found.append(content)
        else:
            num_damaged += 1
    return found, num_damaged


def lines_with(path: Path, mark: bytes) -> list[bytes]:
    """The whole lines of a file in which a mark stands, of which there are few; the others are not divided."""
    found, start = [], 0
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            while (at := content.find(mark, start, MAX_SCANNED_BYTES)) >= 0 and (end := content.find(b"\n", at)) >= 0:
                found.append(content[content.rfind(b"\n", 0, at) + 1 : end])
                start = end
    except (OSError, ValueError):  # An empty file cannot be mapped.
        return []
    return found


def last_lines(path: Path | None, max_bytes: int) -> list[bytes]:
    """The last whole lines of a file."""
    if path is None:
        return []
    try:
        with path.open("rb") as file:
            start = max(file.seek(0, 2) - max_bytes, 0)
            file.seek(start)
            content = file.read(max_bytes)
    except OSError:
        return []
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    return lines[1:] if start else lines


def read_object(path: Path | None, damaged: list[str]) -> dict[str, Any]:
    """The JSON object of a file; empty where there is none, or it is damaged, which is noted."""
    if path is None:
        return {}
    try:
        if path.stat().st_size > MAX_OBJECT_BYTES:
            raise ValueError("too large")
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        return content
    damaged.append(path.name)
    return {}


def at(content: Any, *keys: str) -> Any:
    """What stands below keys; None where one is not there."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content


def text_at(content: Any, *keys: str) -> str | None:
    found = at(content, *keys)
    return found if isinstance(found, str) else None


def number_at(content: Any, *keys: str) -> float | None:
    """None for what is no number, or not finite."""
    return finite_number(at(content, *keys))


def list_at(content: Any, *keys: str) -> list[Any]:
    found = at(content, *keys)
    return found if isinstance(found, list) else []


def object_at(content: Any, *keys: str) -> Mapping[str, Any]:
    """Empty for what is no object."""
    found = at(content, *keys)
    return found if isinstance(found, Mapping) else {}


def finite_number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def numbers_of(content: Any) -> dict[str, float | None]:
    """Of an object those values that are numbers, with None for what is not finite."""
    if not isinstance(content, Mapping):
        return {}
    return {
        name: finite_number(value)
        for name, value in content.items()
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    }


def strict_json(content: Any) -> bytes:
    """As every browser reads it: numbers that are not finite become null."""
    try:
        text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=str)
    except ValueError:
        text = json.dumps(_finite(content), ensure_ascii=False, separators=(",", ":"), default=str)
    return text.encode("utf-8", "replace")


def _finite(content: Any) -> Any:
    match content:
        case float():
            return content if math.isfinite(content) else None
        case Mapping():
            return {key: _finite(value) for key, value in content.items()}
        case list() | tuple():
            return [_finite(value) for value in content]
        case _:
            return content
