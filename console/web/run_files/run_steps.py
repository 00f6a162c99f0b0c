"""The steps and events of a run from a cursor on (`steps_after`, `events_after`)."""

from typing import Any

from plumbob.console.web.run_files.run_content import (
    finite_number,
    json_lines,
    number_at,
    numbers_of,
    read_grown,
    text_at,
)
from plumbob.console.web.run_files.run_index import RunLocation
from plumbob.driver.run_folder.folder import EVENTS_FILE
from plumbob.driver.run_folder.step_events import is_step
from plumbob.trainers.metrics.sinks.jsonl import METRICS_FILE


def steps_after(location: RunLocation, stage: str | None, cursor: str) -> dict[str, Any]:
    """`records` of a stage's steps, and the next cursor."""
    grown = read_grown(location.file(location.stage_folder(stage), METRICS_FILE), cursor)
    contents, num_damaged = json_lines(grown.lines)
    records = [record for record in map(_record, contents) if record is not None]
    return {
        "records": records,
        "cursor": grown.cursor,
        "reset": grown.was_cut,
        "more": grown.has_more,
        "damaged": num_damaged + len(contents) - len(records),
    }


def _record(content: dict[str, Any]) -> dict[str, Any] | None:
    """None for what is no step."""
    stage, step = text_at(content, "stage"), number_at(content, "step")
    if stage is None or step is None:
        return None
    return {
        "stage": stage,
        "step": step,
        "num_steps": number_at(content, "num_steps"),
        "metrics": numbers_of(content.get("metrics")),
        "seconds": {name: value for name, value in numbers_of(content.get("seconds")).items() if value is not None},
        "time": finite_number(content.get("time")),
    }


def events_after(location: RunLocation, cursor: str) -> dict[str, Any]:
    """`events` as the run recorded them, and the next cursor; without the steps, which `steps_after` gives."""
    grown = read_grown(location.file(EVENTS_FILE), cursor)
    contents, num_damaged = json_lines(line for line in grown.lines if not is_step(line))
    events = [content for content in contents if text_at(content, "event") is not None]
    return {
        "events": events,
        "cursor": grown.cursor,
        "reset": grown.was_cut,
        "more": grown.has_more,
        "damaged": num_damaged + len(contents) - len(events),
    }
