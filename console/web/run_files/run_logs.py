"""The logs of a run's driver and workers, one by one or merged by their time stamps (`log_files`, `log_after`)."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from starlette.exceptions import HTTPException

from plumbob.console.web.run_files.run_index import RunLocation
from plumbob.driver.run_folder.folder import DRIVER_LOG, LOGS_FOLDER

MERGED = "merged"
LOG_SUFFIX = ".log"
MAX_FILES = 500
MAX_LIMIT = 2**20
LAST = "-1"
"""The cursor that asks for the end of a log."""

STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")


def log_files(location: RunLocation) -> dict[str, Any]:
    """Name, size and time of each log; the driver's first."""
    files = []
    for name, path in _logs(location).items():
        try:
            found = path.stat()
        except OSError:  # It was removed since it was listed.
            continue
        files.append({"name": name, "bytes": found.st_size, "updated": found.st_mtime})
    return {"files": files}


def _logs(location: RunLocation) -> dict[str, Path]:
    """Name -> file: the names that may be asked for."""
    driver = location.file(DRIVER_LOG)
    found = {} if driver is None else {DRIVER_LOG: driver}
    for path in location.listing(LOGS_FOLDER)[:MAX_FILES]:
        log = location.file(LOGS_FOLDER, path.name) if path.name.endswith(LOG_SUFFIX) else None
        if log is not None:
            found[path.name] = log
    return found


def log_after(location: RunLocation, name: str, cursor: str, limit: int, is_written: bool) -> dict[str, Any]:
    """`text` of a log from a cursor on, at most `limit` bytes of it (of all together: `limit` of each).

    `more`: there is more to be read now.

    Args:
        is_written: somebody may still end the last line; otherwise it is given as it is.
    """
    logs = _logs(location)
    if name == MERGED:
        return _merged(logs, cursor, limit, is_written)
    if name not in logs:
        raise HTTPException(404, f"the run has no log {name[:80]!r}; it has {', '.join(logs) or 'none'}")
    part = _read(logs[name], _offset(cursor), limit, is_written)
    text = part.content.decode("utf-8", "replace")
    return {"text": text, "cursor": str(part.end), "size": part.size, "more": part.has_more}


def _merged(logs: dict[str, Path], cursor: str, limit: int, is_written: bool) -> dict[str, Any]:
    """Each line with the name of its log before it; a line without a stamp stands below the one before it."""
    offsets = _offsets(cursor, list(logs))
    entries: list[tuple[bytes, int, list[str]]] = []
    parts = {}
    for order, (name, path) in enumerate(logs.items()):
        begin = offsets.get(name, _offset(cursor) if cursor == LAST else 0)
        parts[name] = _read(path, begin, limit, is_written)
        entries += [(stamp, order, lines) for stamp, lines in _stamped(name, parts[name].content)]
    entries.sort(key=lambda entry: entry[:2])
    text = "".join(line for _, _, lines in entries for line in lines)
    return {
        "text": text,
        "cursor": ",".join(f"{name}={part.end}" for name, part in parts.items()),
        "size": sum(part.size for part in parts.values()),
        "more": any(part.has_more for part in parts.values()),
    }


def _stamped(name: str, content: bytes) -> Iterator[tuple[bytes, list[str]]]:
    """(time stamp, lines) of a log: a stamped line with those below it that have none."""
    stamp = b""
    lines: list[str] = []
    for line in content.splitlines(keepends=True):
        found = STAMP.match(line)
        if found is not None and lines:
            yield stamp, lines
            lines = []
        stamp = found[0] if found is not None else stamp
        text = line.decode("utf-8", "replace")
        lines.append(f"{name}: {text}" if text.endswith("\n") else f"{name}: {text}\n")
    if lines:
        yield stamp, lines


class LogPart(NamedTuple):
    """Attributes: content: whole lines. end: where they end. size: of the file. has_more: there are more of them."""

    content: bytes
    end: int
    size: int
    has_more: bool


def _read(path: Path, offset: int | None, limit: int, is_written: bool) -> LogPart:
    """At most `limit` bytes; None asks for the last. A log that was cut begins anew."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            start = max(size - limit, 0) if offset is None else (offset if offset <= size else 0)
            file.seek(start)
            content = file.read(limit)
    except OSError:
        return LogPart(b"", offset or 0, 0, False)
    if offset is None and start:
        cut = content.find(b"\n") + 1
        start, content = start + cut, content[cut:]
    is_rest = start + len(content) >= size
    end = content.rfind(b"\n") + 1 or (len(content) if len(content) == limit else 0)
    if is_rest and not is_written:
        end = len(content)
    return LogPart(content[:end], start + end, size, end > 0 and not is_rest)


def _offset(cursor: str) -> int | None:
    """None asks for the end."""
    if cursor == LAST:
        return None
    if not cursor:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise HTTPException(400, "the cursor is none that this server gave: ask without one")
    return int(cursor)


def _offsets(cursor: str, names: list[str]) -> dict[str, int]:
    if cursor in ("", LAST):
        return {}
    found = {}
    for pair in cursor[:100_000].split(","):
        name, _, end = pair.rpartition("=")
        if name in names:
            found[name] = _offset(end) or 0
    return found
