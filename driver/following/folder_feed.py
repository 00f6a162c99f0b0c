"""A run followed by its folder: its lines of metrics and events as they come, its status as it changes (FolderFeed)."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plumbob.driver.following.followed_ending import FollowedEnding
from plumbob.driver.following.growing_lines import GrowingLines
from plumbob.driver.run_folder.folder import EVENTS_FILE, STATUS_FILE, SUMMARY_FILE
from plumbob.driver.run_folder.listed_run import driver_at_work, silent_driver
from plumbob.trainers.metrics.sinks.jsonl import METRICS_FILE
from plumbob.trainers.metrics.stage_result import StageSummary
from plumbob.trainers.metrics.step_record import Listener, ResponseSample, StepRecord

ENDINGS = frozenset({"finished", "stopped", "failed", "refused"})
"""Events that are a driver's last."""

Steps = dict[str, list[StepRecord]]
"""Stage -> its steps that have not been reported yet."""


class FolderFeed:
    """Tells `listener` what is new in the folder of a run each time that it is asked to, beginning with the last step.

    No file is read twice but `status.json`, which is as large at the end as at the beginning. What cannot be read, as
    while it is replaced, is passed over: the next look will find it.
    """

    def __init__(self, folder: Path, listener: Listener) -> None:
        self._folder, self._listener = folder, listener
        self._events = GrowingLines(folder / EVENTS_FILE)
        self._metrics: dict[Path, GrowingLines] = {}
        self._status_time = -1
        self._status: dict[str, Any] = {}
        self._stage = ""
        self._message = ""
        self._is_first = True

    def poll(self) -> FollowedEnding | None:
        """Tell what is new; how the run ended, once it has, or None while it is running."""
        is_at_work = driver_at_work(self._folder) is not None  # Asked first: all that it wrote is there by then.
        self._read_status()
        ending = self._first_look(is_at_work) if self._is_first else None
        if ending is not None:
            return ending
        # Before the steps, of which those of a stage that has ended are all there.
        events = [] if self._is_first else self._events.new()
        steps = self._new_steps()
        for event in events:
            ending = self._tell_event(event, steps) or ending
        for stage in list(steps):
            self._tell_steps(stage, steps)
        self._is_first = False
        if ending is None and not is_at_work:
            return FollowedEnding("stopped", "its driver is gone")
        if ending is None and (unclear := silent_driver(self._folder)) is not None:
            return FollowedEnding("unknown", unclear)
        return ending

    def _first_look(self, is_at_work: bool) -> FollowedEnding | None:
        """Which stage is running, or how the run ended before it was looked at."""
        events = self._events.new()
        if (self._folder / SUMMARY_FILE).exists():
            return FollowedEnding("finished", "")
        if events and not is_at_work:  # The record of one that has just resumed ends with how it ended before.
            return _ending(events[-1])
        stage = self._status.get("stage")
        if isinstance(stage, str):
            self._begin(stage)
        return None

    def _tell_event(self, event: Mapping[str, Any], steps: Steps) -> FollowedEnding | None:
        match event:
            case {"event": "stage_began", "stage": str(stage)}:
                self._begin(stage)
            case {"event": "stage_ended", "stage": str(stage), "summary": dict(summary)}:
                self._tell_steps(stage, steps)
                if "seconds" in summary and "peak_memory_gib" in summary:
                    self._listener.stage_ended(stage, StageSummary.from_dict(summary))
                self._stage = ""
        return _ending(event)

    def _begin(self, stage: str) -> None:
        if stage != self._stage:
            self._stage = stage
            self._listener.stage_began(stage)

    def _new_steps(self) -> Steps:
        steps: Steps = {}
        for path in sorted([self._folder / METRICS_FILE, *self._folder.glob(f"*/{METRICS_FILE}")]):
            for line in self._metrics.setdefault(path, GrowingLines(path)).new():
                record = self._record(line)
                # Of stages that had ended before the first look only where they end is known of.
                if record is not None and not (self._is_first and record.stage != self._stage):
                    steps.setdefault(record.stage, []).append(record)
        return steps

    def _tell_steps(self, stage: str, steps: Steps) -> None:
        """Tell those of a stage, and take them out."""
        for record in steps.pop(stage, []):
            self._listener.stepped(record)

    def _record(self, line: Mapping[str, Any]) -> StepRecord | None:
        match line:
            case {"stage": str(stage), "step": int(step), "num_steps": int(num), "metrics": dict(metrics)}:
                seconds, joules = (_numbers(line.get(name) or {}) for name in ("seconds", "joules"))
                return StepRecord(stage, step, num, _numbers(metrics), seconds, self._sample(stage), joules=joules)
        return None

    def _sample(self, stage: str) -> ResponseSample | None:
        match self._status:
            case {"stage": of, "sample": {"prompt": str(prompt), "response": str(response), "score": score}} if (
                of == stage
            ):
                return ResponseSample(prompt, response, math.nan if score is None else float(score))
        return None

    def _read_status(self) -> None:
        path = self._folder / STATUS_FILE
        try:
            time_ns = path.stat().st_mtime_ns
            if time_ns == self._status_time:
                return
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if not isinstance(content, dict):
            return
        self._status_time, self._status = time_ns, content
        message = content.get("last_message")
        if isinstance(message, str) and message != self._message:
            self._message = message
            if message and not self._is_first:
                self._listener.notify(str(content.get("stage", "run")), message)
        self._listener.workers_changed(_counts(content.get("workers")))


def _ending(event: Mapping[str, Any]) -> FollowedEnding | None:
    kind = event.get("event")
    return FollowedEnding(kind, str(event.get("why", ""))) if isinstance(kind, str) and kind in ENDINGS else None


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: math.nan if value is None else float(value) for name, value in values.items()}


def _counts(workers: object) -> dict[str, dict[str, int]]:
    """As `cluster.run_status.counts_by_state` has it, from JSON, without Ray."""
    if not isinstance(workers, dict):
        return {}
    rows = {role: [row for row in group if isinstance(row, dict)] for role, group in workers.items()}
    return {role: dict(Counter(str(row.get("state", "")) for row in group)) for role, group in rows.items() if group}
