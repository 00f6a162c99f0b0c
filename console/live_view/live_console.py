"""The live display of a terminal: the stage that runs stays at the bottom, what has ended and messages stand above."""

import time
from typing import Self, TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.text import Text

from plumbob.console.live_view.filled_lines import filled
from plumbob.console.live_view.stage_view import RunningStage
from plumbob.console.live_view.worker_words import worker_words
from plumbob.console.tables import duration, ended_line, printable
from plumbob.core.activities import activities
from plumbob.core.process_ends.stop_signals import stop_signals
from plumbob.trainers.metrics.stage_result import StageSummary
from plumbob.trainers.metrics.step_record import StepRecord, WorkerCounts

REFRESHES_PER_S = 4
SHOWN_AFTER_S = 1.0
"""How long something has to last before it is shown: a step of a small model has a dozen things a second."""


class LiveConsole:
    """Shows a run on a terminal that can move its cursor, at any width."""

    def __init__(self, stream: TextIO) -> None:
        # Lines of others pass through it as they are: a bracket in one is no markup.
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._live = Live(self, console=self._console, refresh_per_second=REFRESHES_PER_S)
        self._stages: dict[str, RunningStage] = {}
        self._workers: WorkerCounts = {}

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.transient = not self._stages  # A run that failed leaves where it was.
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The stages that run, their workers, what is being done, and that the run was asked to stop."""
        width = options.max_width
        lines = [line for stage in list(self._stages.values()) for line in stage.lines(width, not options.ascii_only)]
        workers = filled([Text(words) for words in worker_words(self._workers)], width, "dim") if lines else []
        # A signal's handler can write to the terminal alone, where the next picture stands over it.
        warning = [] if stop_signals.warning is None else [Text(stop_signals.warning, style="bold")]
        yield Group(*lines, *workers, *_activities(width), *warning)

    def stage_began(self, stage: str) -> None:
        self._stages[stage] = RunningStage(stage)

    def stepped(self, record: StepRecord) -> None:
        self._running(record.stage).stepped(record)

    def notify(self, stage: str, message: str) -> None:
        self._print(f"{stage}: {message}")

    def workers_changed(self, workers: WorkerCounts) -> None:
        self._workers = workers

    def stage_ended(self, stage: str, summary: StageSummary) -> None:
        self._stages.pop(stage, None)
        self._print(ended_line(stage, summary.seconds, summary.as_dict()))

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
    words = [Text(f"{activity.doing} ({duration(round(now - activity.began))})") for activity in long]
    return filled(words, width, style="dim")
