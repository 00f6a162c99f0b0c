"""The spans of a run's trace file (`TraceSpans`): read on from where they were read before, in bounded memory."""

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plumbob.console.web.run_files.run_content import at, number_at, text_at
from plumbob.core.spans import END

MAX_SPANS = 4_000
"""Of one worker, as a page has them: of more, neighbours in the same state become one."""

KEPT_SPANS = 4 * MAX_SPANS
"""Of one worker, until they are merged to half as many."""

READ_BYTES = 64 * 2**20
"""Of a trace, each time that it is asked for."""

MAX_TRACES = 8

LOADING = ("load", "start", "join", "boot", "mak", "read", "open", "begin")
"""How the names of work begin that comes before a worker can do its own."""

Span = dict[str, Any]


@dataclass(frozen=True)
class TracedWorkers:
    """What was read of a trace.

    Attributes:
        workers: name -> spans; what is within another span of its worker is in its `what` alone.
        is_merged: whether neighbours have become one.
        unread: bytes that are left for the next reading.
    """

    workers: dict[str, list[Span]]
    is_merged: bool = False
    unread: int = 0


class TraceSpans:
    """Remembers how far each trace was read; asked from several threads."""

    def __init__(self) -> None:
        self._read: dict[Path, _OpenTrace] = {}
        self._lock = threading.Lock()

    def of(self, path: Path | None) -> TracedWorkers:
        """`path`: None where a run has no trace."""
        if path is None:
            return TracedWorkers({})
        with self._lock:
            trace = self._read.pop(path, None) or _OpenTrace()
            if not trace.is_begun_by(path):
                trace = _OpenTrace()
            trace.read(path)
            self._read[path] = trace  # The one that was asked for last is the last to be forgotten.
            while len(self._read) > MAX_TRACES:
                del self._read[next(iter(self._read))]
            workers = {name: list(spans) for name, spans in trace.workers.items()}
            return TracedWorkers(workers, trace.is_merged, max(0, trace.size - trace.offset))


@dataclass
class _OpenTrace:
    """One event a line, as a run writes them.

    Attributes:
        inode: of the file: another of the same name is read from its beginning.
        offset: bytes that were read; what stands at the end of a closed trace is not, for a resumed run writes there.
        names: number of a row -> its worker.
    """

    inode: int = 0
    size: int = 0
    offset: int = 0
    names: dict[int, str] = field(default_factory=dict)
    workers: dict[str, list[Span]] = field(default_factory=dict)
    is_merged: bool = False

    def is_begun_by(self, path: Path) -> bool:
        found = path.stat()
        return (found.st_ino == self.inode and found.st_size >= self.offset) or not self.inode

    def read(self, path: Path) -> None:
        with path.open("rb") as file:
            found = path.stat()
            self.inode, self.size = found.st_ino, found.st_size
            file.seek(self.offset)
            content = file.read(READ_BYTES)
        is_last = self.offset + len(content) >= self.size
        if is_last and content.endswith(END):
            content, self.size = content.removesuffix(END), self.size - len(END)
        whole, end, rest = content.rpartition(b"\n")
        if not end and not is_last:  # A line longer than a reading is no event: it is passed over.
            rest = b""
        for line in whole.splitlines():
            self._take(line)
        # What stands behind the last end of a line is read once it is whole.
        is_whole = is_last and self._take(rest)
        self.offset += len(content) if is_whole else len(content) - len(rest)

    def _take(self, line: bytes) -> bool:
        """Whether the line is an event, or any JSON."""
        try:
            event = json.loads(line.strip().rstrip(b","))
        except (ValueError, RecursionError):
            return False
        tid, name = at(event, "tid"), text_at(event, "name")
        if not isinstance(tid, int) or name is None:
            return True
        if event.get("ph") == "M":
            self.names[tid] = text_at(event, "args", "name") or str(tid)
            return True
        began, lasted = number_at(event, "ts"), number_at(event, "dur")
        if event.get("ph") != "X" or began is None or lasted is None:
            return True
        state = "loading" if name.lower().startswith(LOADING) else "idle" if "waiting" in name else "busy"
        span = {"begin": began / 1e6, "end": (began + max(lasted, 0)) / 1e6, "state": state, "what": name[:200]}
        spans = self.workers.setdefault(self.names.get(tid, str(tid)), [])
        spans.append(span)
        if len(spans) > KEPT_SPANS:
            spans[:] = merged_to(KEPT_SPANS // 2, spans)
            self.is_merged = True
        return True


def merged_to(most: int, spans: list[Span]) -> list[Span]:
    """In the order of time, at most so many: of more, as many neighbours as need be become one, in the state that most
    of their time has."""
    ordered = sorted(spans, key=lambda span: (span["begin"], -span["end"]))
    size = -(-len(ordered) // most)
    if size <= 1:
        return ordered
    return [_one_of(ordered[start : start + size]) for start in range(0, len(ordered), size)]


def _one_of(spans: list[Span]) -> Span:
    seconds: dict[str, float] = {}
    for span in spans:
        seconds[span["state"]] = seconds.get(span["state"], 0.0) + span["end"] - span["begin"]
    state = max(seconds, key=lambda name: seconds[name])
    what = ", ".join(dict.fromkeys(span["what"] for span in spans))[:200]
    return {"begin": spans[0]["begin"], "end": max(span["end"] for span in spans), "state": state, "what": what}
