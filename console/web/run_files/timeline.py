"""Who was at what, and when: from the trace of a run, or else from its events and the phases of its steps."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from plumbob.console.web.run_files.run_content import at, list_at, number_at, read_object, text_at
from plumbob.console.web.run_files.run_index import RunLocation
from plumbob.console.web.run_files.run_steps import events_after, steps_after
from plumbob.console.web.run_files.trace_spans import MAX_SPANS, Span, TraceSpans, merged_to
from plumbob.core.spans import MAIN_ROW
from plumbob.driver.run_folder.folder import STATUS_FILE, TRACE_FILE

WORK_OF = {"rollout": ("sample",), "scorer": ("score",), "gold_scorer": ("score",)}
"""Role -> the phases of a step in which its workers are busy; of the learners all that follow."""
LEARNERS = "learners"
"""What the record of events calls a group of learners that was lost."""
LEARNER_PHASES = ("logprobs", "evaluate", "learn", "publish", "commit", "save")


def timeline(location: RunLocation, stage: str | None, traces: TraceSpans) -> dict[str, Any]:
    """`workers` with their spans in seconds since 1970, and when versions were published.

    `unread`: bytes of the trace that are read when the timeline is asked for again.
    """
    events = _all_events(location)
    published = [
        {"time": when, "version": number_at(event, "version")}
        for event in events
        if text_at(event, "event") == "published" and (when := _time(event)) is not None
        if not stage or text_at(event, "stage") in (None, stage)
    ]
    trace = traces.of(location.file(TRACE_FILE))
    workers, more = trace.workers, trace.is_merged
    source = "trace" if workers else "events"
    if not workers:
        workers = _from_events(location, stage, events)
    _mark_lost(workers, events)
    hosts = _hosts(location, events)
    rows: list[dict[str, Any]] = []
    for name, spans in workers.items():
        merged = merged_to(MAX_SPANS, spans)
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
        "unread": trace.unread,
    }


def _all_events(location: RunLocation) -> list[dict[str, Any]]:
    """At most as many as two readings give: a run writes three lines a step, of which one is the step."""
    first = events_after(location, "")
    return [*first["events"], *(events_after(location, first["cursor"])["events"] if first["more"] else ())]


def _time(event: Mapping[str, Any]) -> float | None:
    try:
        return datetime.fromisoformat(text_at(event, "time") or "").timestamp()
    except (ValueError, OverflowError, OSError):
        return None


# -------------------------------------------------------------------------------------------------------- of its steps


def _from_events(location: RunLocation, stage: str | None, events: list[dict[str, Any]]) -> dict[str, list[Span]]:
    """The driver's phases, laid back from when each step's line was written; each role is busy in its own."""
    found: dict[str, list[Span]] = {MAIN_ROW: []}
    phases: list[Span] = []
    for record in steps_after(location, stage, "")["records"]:
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
    for worker in _hosts(location, events):
        found.setdefault(worker, [])
    for worker, spans in found.items():
        role = worker.rpartition("-")[0]
        own = WORK_OF.get(role, LEARNER_PHASES)
        if worker != MAIN_ROW:
            spans += [span | {"state": "busy" if span["what"] in own else "idle"} for span in phases]
    return found


def _hosts(location: RunLocation, events: list[dict[str, Any]]) -> dict[str, str]:
    """Worker -> the host that it is or was on."""
    found = {
        worker: host
        for event in events
        if (worker := text_at(event, "worker")) is not None and (host := text_at(event, "on")) is not None
    }
    workers = at(read_object(location.file(STATUS_FILE), []), "workers")
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
