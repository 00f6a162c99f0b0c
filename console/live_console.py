"""The live display of a terminal: the stage that runs stays at the bottom, what has ended and messages stand above."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self, TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from plumbob.console.stage_clock import StageClock
from plumbob.console.tables import duration, ended_line, heldout_metrics, printable, step_metrics
from plumbob.core.activities import activities
from plumbob.core.stop_signals import stop_signals
from plumbob.trainers.metrics.stage_result import StageSummary
from plumbob.trainers.metrics.step_record import StepRecord

BAR_FROM_WIDTH = 50
REFRESHES_PER_S = 4
SHOWN_AFTER_S = 1.0
"""How long something has to last before it is shown: a step of a small model has a dozen things a second."""

INDENT = "  "


@dataclass
class RunningStage:
    """What is shown of a stage that runs."""

    name: str
    clock: StageClock = field(default_factory=StageClock.start)
    step: StepRecord | None = None
    remaining_s: float = 0.0
    heldout: tuple[str, ...] = ()

    def stepped(self, record: StepRecord) -> None:
        self.step, self.remaining_s = record, self.clock.remaining_s(record)
        measured = heldout_metrics(record)
        if measured:
            self.heldout = (*measured, f"(step {record.step})")

    def lines(self, width: int) -> list[RenderableType]:
        shown: list[RenderableType] = [self._progress(width)]
        if self.step is not None:
            shown += _filled(step_metrics(self.step), width)
        return shown + _filled(self.heldout, width)

    def _progress(self, width: int) -> Table:
        has_bar = width >= BAR_FROM_WIDTH
        columns = [Column(no_wrap=True, overflow="ellipsis"), *([Column(ratio=1)] if has_bar else [])]
        table = Table.grid(*columns, Column(no_wrap=True), Column(no_wrap=True), expand=has_bar, padding=(0, 2, 0, 0))
        table.pad_edge = False
        if self.step is None:
            bar, position, left = ProgressBar(total=None, pulse=True), "", duration(round(self.clock.elapsed_s()))
        else:
            bar = ProgressBar(total=self.step.num_steps, completed=self.step.step)
            position = f"{self.step.step}/{self.step.num_steps}"
            left = f"{duration(self.remaining_s)} left" if self.step.step < self.step.num_steps else "finishing"
        cells: list[RenderableType] = [Text(self.name), *([bar] if has_bar else [])]
        table.add_row(*cells, Text(position), Text(left, style="dim"))
        return table


class LiveConsole:
    """Shows a run on a terminal that can move its cursor, at any width."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream)
        self._live = Live(self, console=self._console, refresh_per_second=REFRESHES_PER_S)
        self._stages: dict[str, RunningStage] = {}

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.transient = not self._stages  # A run that failed leaves where it was.
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The stages that run, what is being done, and that the run was asked to stop."""
        lines = [line for stage in list(self._stages.values()) for line in stage.lines(options.max_width)]
        # A signal's handler can write to the terminal alone, where the next picture stands over it.
        warning = [] if stop_signals.warning is None else [Text(stop_signals.warning, style="bold")]
        yield Group(*lines, *_activities(options.max_width), *warning)

    def stage_began(self, stage: str) -> None:
        self._stages[stage] = RunningStage(stage)

    def stepped(self, record: StepRecord) -> None:
        self._running(record.stage).stepped(record)

    def notify(self, stage: str, message: str) -> None:
        self._print(f"{stage}: {message}")

    def stage_ended(self, stage: str, summary: StageSummary) -> None:
        elapsed_s = self._running(stage).clock.elapsed_s()
        del self._stages[stage]
        self._print(ended_line(stage, elapsed_s, summary.as_dict()))

    def _running(self, stage: str) -> RunningStage:
        if stage not in self._stages:
            self.stage_began(stage)
        return self._stages[stage]

    def _print(self, line: str) -> None:
        self._console.print(Text(printable(line)))


def _activities(width: int) -> list[RenderableType]:
    """A line for all that has lasted for a moment, so that a long wait says what for."""
    now = time.monotonic()
    long = [activity for activity in activities.now() if now - activity.began >= SHOWN_AFTER_S]
    words = [f"{activity.doing} ({duration(round(now - activity.began))})" for activity in long]
    return _filled(words, width, style="dim")


def _filled(words: Sequence[str], width: int, style: str = "") -> list[RenderableType]:
    """Lines of whole words as far as they fit, indented below their stage; one that is too long by itself is cut."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + len(INDENT) + len(word) <= width:
            lines[-1] += INDENT + word
        else:
            lines.append(INDENT + word)
    return [Text(printable(line), style=style, no_wrap=True, overflow="ellipsis") for line in lines]
