"""What shows a running run: the live display on a terminal, plain lines in a pipe, JSON lines for scripts."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from io import TextIOWrapper
from typing import Any, Self, TextIO

from plumbob.console.live_view.live_console import LiveConsole
from plumbob.console.live_view.stage_clock import StageClock
from plumbob.console.tables import (
    aligned,
    duration,
    ended_line,
    heldout_metrics,
    printable,
    stage_metrics,
    step_metrics,
    summary_table,
)
from plumbob.trainers.metrics.json_lines import strict
from plumbob.trainers.metrics.stage_result import StageSummary
from plumbob.trainers.metrics.step_record import StepRecord, WorkerCounts


class PlainConsole:
    """A line when a stage begins and ends, and about every tenth of its steps."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._clocks: dict[str, StageClock] = {}
        self._tenths: dict[str, int] = {}
        self._heldout: dict[str, list[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()

    def stage_began(self, stage: str) -> None:
        self._clocks[stage], self._tenths[stage] = StageClock.start(), 0
        self._print(f"{stage}: begins")

    def stepped(self, record: StepRecord) -> None:
        remaining_s = self._clock(record.stage).remaining_s(record)
        self._heldout[record.stage] = heldout_metrics(record) or self._heldout.get(record.stage, [])
        tenths = 10 * record.step // record.num_steps
        if tenths > self._tenths.get(record.stage, 0):
            self._tenths[record.stage] = tenths
            metrics = [*step_metrics(record), *self._heldout.pop(record.stage)]
            line = [f"step {record.step}/{record.num_steps}", *metrics, f"{duration(remaining_s)} left"]
            self._print(f"{record.stage}: {', '.join(line)}")

    def workers_changed(self, workers: WorkerCounts) -> None:
        """Nothing that a line would be worth."""

    def notify(self, stage: str, message: str) -> None:
        self._print(f"{stage}: {message}")

    def stage_ended(self, stage: str, summary: StageSummary) -> None:
        self._print(ended_line(stage, summary.seconds, summary.as_dict()))

    def _clock(self, stage: str) -> StageClock:
        return self._clocks.setdefault(stage, StageClock.start())

    def _print(self, line: str) -> None:
        print(printable(line), file=self._stream, flush=True)


class JsonConsole:
    """One JSON object per line: `event` is stage_began, step, message or stage_ended."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()

    def stage_began(self, stage: str) -> None:
        print_json({"event": "stage_began", "stage": stage}, self._stream)

    def stepped(self, record: StepRecord) -> None:
        print_json({"event": "step"} | asdict(record), self._stream)

    def workers_changed(self, workers: WorkerCounts) -> None:
        """Left to `plumbob status --json`: it changes many times a step."""

    def notify(self, stage: str, message: str) -> None:
        print_json({"event": "message", "stage": stage, "message": message}, self._stream)

    def stage_ended(self, stage: str, summary: StageSummary) -> None:
        print_json({"event": "stage_ended", "stage": stage, "summary": summary.as_dict()}, self._stream)


Display = LiveConsole | PlainConsole | JsonConsole


def choose_listener(json: bool, stream: TextIO) -> Display:
    """JSON when asked for, the live display on a terminal that can move its cursor, plain lines elsewhere.

    Letters that the stream has no form for, such as those of answers in an ASCII locale, end no run: they are escaped.
    """
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    if json:
        return JsonConsole(stream)
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveConsole(stream)
    return PlainConsole(stream)


def print_json(content: Mapping[str, Any], stream: TextIO) -> None:
    """One line of strict JSON: a number that is not finite becomes null."""
    print(json.dumps(strict(content), allow_nan=False, default=str), file=stream, flush=True)


def print_summary(summary: Mapping[str, Any], stream: TextIO) -> None:
    """The table that a run ends with: one row per stage, or one list each on a terminal that is too narrow."""
    lines = aligned(summary_table(summary))
    if stream.isatty() and max(map(len, lines)) > shutil.get_terminal_size().columns:
        stages = {name: stage_metrics(stage) for name, stage in summary.get("stages", {}).items()}
        shown = {name: metrics for name, metrics in stages.items() if metrics}
        lines = [f"{name}: {', '.join(' '.join(pair) for pair in metrics.items())}" for name, metrics in shown.items()]
    if "seconds_total" in summary:
        lines.append(f"{summary.get('name', 'run')}: {duration(summary['seconds_total'])} in all")
    print("\n".join(lines), file=stream, flush=True)
