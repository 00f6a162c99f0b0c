"""Who was at what, and when: from the trace of a run, or else from its events and the phases of its steps."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from plumbob.console.web.run_files.run_content import at, list_at, number_at, read_object, text_at
from plumbob.console.web.run_files.run_index import RunPlace
from plumbob.console.web.run_files.run_steps import events_after, steps_after
from plumbob.core.spans import MAIN_ROW
from plumbob.driver.run_folder.folder import STATUS_FILE, TRACE_FILE

MAX_TRACE_BYTES = 64 * 2**20
MAX_SPANS = 4_000
"""Of one worker: of more, neighbours in the same state become one."""

LOADING = ("load", "start", "join", "boot", "mak", "read", "open", "begin")
"""How the names of work begin that comes before a worker can do its own."""

WORK_OF = {"rollout": ("sample",), "scorer": ("score",), "gold_scorer": ("score",)}
"""Role -> the phases of a step in which its workers are busy; of the learners all that follow."""
LEARNERS = "learners"
"""What the record of events calls a group of learners that was lost."""
LEARNER_PHASES = ("logprobs", "evaluate", "learn", "publish", "commit", "save")

Span = dict[str, Any]


def timeline(place: RunPlace, stage: str | None) -> dict[str, Any]:
    """`workers` with their spans in seconds since 1970, and when versions were published."""
    events = _all_events(place)
    published = [
        {"time": when, "version": number_at(event, "version")}
        for event in events
        if text_at(event, "event") == "published" and (when := _time(event)) is not None
        if not stage or text_at(event, "stage") in (None, stage)
    ]
    workers = _from_trace(place.file(TRACE_FILE))
    source = "trace" if workers else "events"
    if not workers:
        workers = _from_events(place, stage, events)
    _mark_lost(workers, events)
    hosts = _hosts(place, events)
    rows: list[dict[str, Any]] = []
    more = False
    for name, spans in workers.items():
        merged = _merged(sorted(spans, key=lambda span: (span["begin"], -span["end"])))
        more |= len(merged) < len(spans)
        rows.append({"worker": name, "role": name.rpartition("-")[0] or name, "host": hosts.get(name), "spans": merged})
    times = [span[edge] for row in rows for span in row["spans"] for edge in ("begin", "end")]
    times += [when for event in events if (when := _time(event)) is not None] if not times else []
    edges = (min(times), max(times)) if times else (None, None)
    return {
        "workers": rows,
        "published": published,
        "began": edges[0],
        "ended": edges[1],
        "source": source,
        "more": more,
    }


def _all_events(place: RunPlace) -> list[dict[str, Any]]:
    """At most as many as one reading gives: a run writes two a step."""
    return list(events_after(place, "")["events"])


def _time(event: Mapping[str, Any]) -> float | None:
    try:
        return datetime.fromisoformat(text_at(event, "time") or "").timestamp()
    except (ValueError, OverflowError, OSError):
        return None


# --------------------------------------------------------------------------------------------------------- of a trace


def _from_trace(path: Path | None) -> dict[str, list[Span]]:
    """Row -> spans; what is within another span of its row is in its `what` alone."""
    rows: dict[int, str] = {}
    found: dict[str, list[Span]] = {}
    for event in _trace_events(path):
        tid, name = at(event, "tid"), text_at(event, "name")
        if not isinstance(tid, int) or name is None:
            continue
        if event.get("ph") == "M":
            rows[tid] = text_at(event, "args", "name") or str(tid)
            continue
        began, lasted = number_at(event, "ts"), number_at(event, "dur")
        if event.get("ph") != "X" or began is None or lasted is None:
            continue
        state = "loading" if name.lower().startswith(LOADING) else "idle" if "waiting" in name else "busy"
        span = {"begin": began / 1e6, "end": (began + max(lasted, 0)) / 1e6, "state": state, "what": name[:200]}
        found.setdefault(rows.get(tid, str(tid)), []).append(span)
    return found


def _trace_events(path: Path | None) -> Iterable[dict[str, Any]]:
    """One a line, as a run writes them: a last line that is not whole is left out."""
    if path is None:
        return
    with path.open("rb") as file:
        for line in file.read(MAX_TRACE_BYTES).splitlines():
            try:
                content = json.loads(line.strip().rstrip(b","))
            except (ValueError, RecursionError):
                continue
            if isinstance(content, dict):
                yield content


# -------------------------------------------------------------------------------------------------------- of its steps


def _from_events(place: RunPlace, stage: str | None, events: list[dict[str, Any]]) -> dict[str, list[Span]]:
    """The driver's phases, laid back from when each step's line was written; each role is busy in its own."""
    found: dict[str, list[Span]] = {MAIN_ROW: []}
    phases: list[Span] = []
    for record in steps_after(place, stage, "")["records"]:
        end = record["time"]
        if end is None:
            continue
        lengths = {phase: max(seconds, 0.0) for phase, seconds in record["seconds"].items()}
        at_s = end - sum(lengths.values())
        for phase, seconds in lengths.items():
            phases.append(
                {"begin": at_s, "end": at_s + seconds, "state": "busy", "what": phase, "step": record["step"]}
            )
            at_s += seconds
    found[MAIN_ROW] = phases
    for event in events:
        worker, when = text_at(event, "worker"), _time(event)
        if text_at(event, "event") in ("joined", "replaced") and worker is not None and when is not None:
            found.setdefault(worker, [])
    for worker in _hosts(place, events):
        found.setdefault(worker, [])
    for worker, spans in found.items():
        role = worker.rpartition("-")[0]
        own = WORK_OF.get(role, LEARNER_PHASES)
        if worker != MAIN_ROW:
            spans += [span | {"state": "busy" if span["what"] in own else "idle"} for span in phases]
    return found


def _hosts(place: RunPlace, events: list[dict[str, Any]]) -> dict[str, str]:
    """Worker -> the host that it is or was on."""
    found = {
        worker: host
        for event in events
        if (worker := text_at(event, "worker")) is not None and (host := text_at(event, "on")) is not None
    }
    workers = at(read_object(place.file(STATUS_FILE), []), "workers")
    for role in workers if isinstance(workers, Mapping) else ():
        for row in list_at(workers, role):
            worker, host = text_at(row, "worker"), text_at(row, "host")
            if worker is not None and host is not None:
                found[worker] = host
    return found


def _mark_lost(workers: dict[str, list[Span]], events: list[dict[str, Any]]) -> None:
    """A worker that was lost is so to the end of what is shown."""
    last = max((span["end"] for spans in workers.values() for span in spans), default=None)
    for event in events:
        slot, when = text_at(event, "slot"), _time(event)
        if text_at(event, "event") != "lost" or slot is None or when is None or last is None:
            continue
        spans = [span for span in workers.get(slot, []) if span["begin"] < when]
        # Another worker takes the place of a lost one; learners are all started again, by their own names.
        until = when + 1 if slot == LEARNERS else max(last, when)
        lost = {"begin": when, "end": until, "state": "lost", "what": (text_at(event, "why") or "")[:200]}
        workers[slot] = [span | {"end": min(span["end"], when)} for span in spans] + [lost]


def _merged(spans: list[Span]) -> list[Span]:
    """At most MAX_SPANS: of more, as many neighbours as need be become one, in the state that most of them have."""
    size = -(-len(spans) // MAX_SPANS)
    if size <= 1:
        return spans
    return [_one_of(spans[start : start + size]) for start in range(0, len(spans), size)]


def _one_of(spans: list[Span]) -> Span:
    seconds: dict[str, float] = {}
    for span in spans:
        seconds[span["state"]] = seconds.get(span["state"], 0.0) + span["end"] - span["begin"]
    state = max(seconds, key=lambda name: seconds[name])
    what = ", ".join(dict.fromkeys(span["what"] for span in spans))[:200]
    return {"begin": spans[0]["begin"], "end": max(span["end"] for span in spans), "state": state, "what": what}
