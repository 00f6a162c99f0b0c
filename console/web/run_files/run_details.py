"""What the overview of a run shows beside its line: findings with their steps, notes, versions (`run_details`)."""

from collections.abc import Iterator, Mapping
from typing import Any

from plumbob.configs.resolved_copy import RESOLVED_FILE, config_of
from plumbob.console.metric_names import HELDOUT, metric_name
from plumbob.console.web.run_files.run_content import (
    at,
    json_lines,
    last_lines,
    list_at,
    number_at,
    object_at,
    read_grown,
    read_object,
    text_at,
)
from plumbob.console.web.run_files.run_facts import ALARM, TAIL_BYTES, RunFacts
from plumbob.console.web.run_files.run_index import RunLocation
from plumbob.driver.run_folder.folder import DRIVER_LOG, STATUS_FILE, SUMMARY_FILE
from plumbob.trainers.metrics.sinks.jsonl import METRICS_FILE

LOG_BYTES = 2 * 2**20
"""Of the driver's log, in which the words of an alarm are looked for."""

MAX_FINDINGS = 500


def run_details(location: RunLocation, facts: RunFacts) -> dict[str, Any]:
    """The run's line with all that its overview shows. Damaged files are left out, and named in `damaged`."""
    unread: list[str] = []
    resolved = read_object(location.file(RESOLVED_FILE), unread)
    summary = read_object(location.file(SUMMARY_FILE), unread)
    status = read_object(location.file(STATUS_FILE), unread)
    stages, config = object_at(summary, "stages"), config_of(resolved)
    return facts.of(location) | {
        "status": status or None,
        "summary": summary or None,
        "findings": _findings(location, stages)[:MAX_FINDINGS],
        "notes": [
            {"stage": stage, "message": note}
            for stage, content in stages.items()
            for note in list_at(content, "notes")
            if isinstance(note, str)
        ],
        "config": config or None,
        "versions": at(resolved, "packages"),
        "machine": at(resolved, "machine"),
        "git_commit": at(resolved, "git_commit"),
        "resumed": list_at(resolved, "resumed"),
        "monitors": at(config, "online", "monitors"),
        "metric_names": {
            stage: names for folder in location.stage_folders() for stage, names in _names(location, folder)
        },
    }


def _findings(location: RunLocation, stages: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of a stage that ended what its summary says; of another the first step of each alarm in its metrics."""
    found = [
        _finding(stage, number_at(alarm, "step"), text_at(alarm, "name"), text_at(alarm, "message"))
        for stage, content in stages.items()
        for alarm in list_at(content, "monitors")
    ]
    first = [
        alarm
        for folder in location.stage_folders()
        for alarm in _first_alarms(location, folder)
        if alarm[0] not in stages
    ]
    messages = _messages(location) if first else {}
    for stage, step, name in first:
        words = messages.get((stage, step), [])
        message_of = next((message for message in words if name.split("_")[0].lower() in message.lower()), None)
        found.append(_finding(stage, step, name, message_of or next(iter(words), name.replace("_", " "))))
    return found


def _finding(stage: str, step: float | None, name: str | None, message: str | None) -> dict[str, Any]:
    return {"stage": stage, "step": step, "name": name, "message": message, "kind": "alarm", "rows": None}


def _first_alarms(location: RunLocation, folder: str) -> Iterator[tuple[str, int, str]]:
    """(stage, step, name) of each alarm of a stage, where it was first raised."""
    cursor, seen = "", set()
    path = location.file(folder, METRICS_FILE)
    while True:
        grown = read_grown(path, cursor)
        lines = [line for line in grown.lines if f'"{ALARM}'.encode() in line]
        for record in json_lines(lines)[0]:
            stage, step = text_at(record, "stage"), number_at(record, "step")
            metrics = at(record, "metrics")
            for name in metrics if isinstance(metrics, Mapping) else ():
                if name.startswith(ALARM) and name not in seen and stage is not None and step is not None:
                    seen.add(name)
                    yield stage, int(step), name.removeprefix(ALARM)
        if not grown.has_more or len(seen) > MAX_FINDINGS:
            return
        cursor = grown.cursor


def _messages(location: RunLocation) -> dict[tuple[str, int], list[str]]:
    """(stage, step) -> what the driver told its user of it: lines `TIME STAGE: step N: MESSAGE` of its log."""
    found: dict[tuple[str, int], list[str]] = {}
    for line in last_lines(location.file(DRIVER_LOG), LOG_BYTES):
        _, _, words = line.decode("utf-8", "replace").partition(" ")
        stage, _, rest = words.partition(": step ")
        step, colon, message = rest.partition(": ")
        if colon and step.isascii() and step.isdigit() and len(step) < 12:
            found.setdefault((stage, int(step)), []).append(message)
    return found


def _names(location: RunLocation, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of a stage's metrics what people call them."""
    records, _ = json_lines(last_lines(location.file(folder, METRICS_FILE), TAIL_BYTES))
    metrics = {
        name: None for record in records if isinstance(at(record, "metrics"), Mapping) for name in record["metrics"]
    }
    stage = text_at(records[-1], "stage") if records else None
    if stage is not None:
        yield stage, {name: _named(stage, name) for name in metrics if not name.startswith(ALARM)}


def _named(stage: str, name: str) -> dict[str, Any]:
    known = metric_name(stage, name.removeprefix(HELDOUT))
    title = f"held-out {known.title}" if name.startswith(HELDOUT) else known.title
    return {"title": title, "unit": known.unit, "is_share": known.is_share}
