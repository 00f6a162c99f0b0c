"""Displays of a running run: live on a terminal, plain lines in a pipe, JSON lines for scripts."""

import json
import math
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from plumbob.console.tables import aligned, duration, stage_metrics, step_metrics, summary_table
from plumbob.trainers.metrics.stage_result import StageSummary
from plumbob.trainers.metrics.step_record import StepRecord

BAR_FROM_WIDTH = 90
METRICS_FROM_WIDTH = 60


@dataclass
class _Clock:
    """Time left of one stage, from the steps seen since it began (a resumed stage does not begin at step 1)."""

    began: float
    first_step: int | None = None

    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def remaining_s(self, record: StepRecord) -> float:
        if self.first_step is None:
            self.first_step = record.step
        return self.elapsed() / (record.step - self.first_step + 1) * (record.num_steps - record.step)


class _Clocks:
    def __init__(self) -> None:
        self._clocks: dict[str, _Clock] = {}

    def start(self, stage: str) -> None:
        self._clocks[stage] = _Clock(time.monotonic())

    def clock_of(self, stage: str) -> _Clock:
        if stage not in self._clocks:
            self.start(stage)
        return self._clocks[stage]


class LiveConsole:
    """One line per stage that stays in place, messages above; a narrow terminal loses the bar, then the metrics."""

    def __init__(self, stream: TextIO) -> None:
        console = Console(file=stream)
        fixed = Column(no_wrap=True)
        columns: list[BarColumn | TextColumn] = [TextColumn("{task.description}", table_column=fixed, markup=False)]
        if console.width >= BAR_FROM_WIDTH:
            columns.append(BarColumn(bar_width=20))
        columns.append(TextColumn("{task.fields[position]}", table_column=fixed, markup=False))
        if console.width >= METRICS_FROM_WIDTH:
            shrinking = Column(no_wrap=True, overflow="ellipsis", ratio=1)
            columns.append(TextColumn("{task.fields[metrics]}", table_column=shrinking, markup=False))
        columns.append(TextColumn("{task.fields[time]}", table_column=fixed, style="dim", markup=False))
        self._progress = Progress(*columns, console=console, expand=console.width < BAR_FROM_WIDTH + 30)
        self._tasks: dict[str, TaskID] = {}
        self._clocks = _Clocks()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def stage_began(self, stage: str) -> None:
        self._clocks.start(stage)
        self._tasks[stage] = self._progress.add_task(stage, total=None, position="", metrics="", time="")

    def stepped(self, record: StepRecord) -> None:
        self._progress.update(
            self._task(record.stage),
            completed=record.step,
            total=record.num_steps,
            position=f"{record.step}/{record.num_steps}",
            metrics="  ".join(step_metrics(record)),
            time=f"{duration(self._clocks.clock_of(record.stage).remaining_s(record))} left",
        )

    def notify(self, stage: str, message: str) -> None:
        self._progress.console.print(f"{stage}: {message}", markup=False, highlight=False)

    def stage_ended(self, stage: str, summary: StageSummary) -> None:
        task = self._task(stage)
        self._progress.update(
            task, total=1, completed=1, time=f"done in {duration(self._clocks.clock_of(stage).elapsed())}"
        )

    def _task(self, stage: str) -> TaskID:
        if stage not in self._tasks:
            self.stage_began(stage)
        return self._tasks[stage]


class PlainConsole:
    """A line when a stage begins and ends, and about every tenth of its steps."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._clocks = _Clocks()
        self._tenths: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()

    def stage_began(self, stage: str) -> None:
        self._clocks.start(stage)
        self._tenths[stage] = 0
        self._print(f"{stage}: begins")

    def stepped(self, record: StepRecord) -> None:
        remaining_s = self._clocks.clock_of(record.stage).remaining_s(record)
        tenths = 10 * record.step // record.num_steps
        if tenths > self._tenths.get(record.stage, 0):
            self._tenths[record.stage] = tenths
            metrics = [f"step {record.step}/{record.num_steps}", *step_metrics(record), f"{duration(remaining_s)} left"]
            self._print(f"{record.stage}: {', '.join(metrics)}")

    def notify(self, stage: str, message: str) -> None:
        self._print(f"{stage}: {message}")

    def stage_ended(self, stage: str, summary: StageSummary) -> None:
        metrics = {title: text for title, text in stage_metrics(summary.as_dict()).items() if title != "time"}
        ended = f"{stage}: done in {duration(self._clocks.clock_of(stage).elapsed())}"
        self._print(", ".join([ended, *(f"{title} {text}" for title, text in metrics.items())]))

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class JsonConsole:
    """One JSON object per line: `event` is stage_began, step, said or stage_ended."""

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

    def notify(self, stage: str, message: str) -> None:
        print_json({"event": "said", "stage": stage, "message": message}, self._stream)

    def stage_ended(self, stage: str, summary: StageSummary) -> None:
        print_json({"event": "stage_ended", "stage": stage, "summary": summary.as_dict()}, self._stream)


Display = LiveConsole | PlainConsole | JsonConsole


def choose_listener(json: bool, stream: TextIO) -> Display:
    """JSON when asked for, the live display on a terminal that can move its cursor, plain lines elsewhere."""
    if json:
        return JsonConsole(stream)
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveConsole(stream)
    return PlainConsole(stream)


def print_json(content: Mapping[str, Any], stream: TextIO) -> None:
    """One line of strict JSON: a number that is not finite becomes null."""
    print(json.dumps(_strict(content), allow_nan=False, default=str), file=stream, flush=True)


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


def _strict(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {str(key): _strict(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_strict(inner) for inner in value]
        case _:
            return value
