"""What a program that calls `driver.api` is called back with: each step, each checkpoint, the end (`RunCallback`)."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from plumbob.core.errors import RunStopped, first_line
from plumbob.core.programs.users_code import users_lines
from plumbob.trainers.learner.checkpoint import Checkpoint
from plumbob.trainers.metrics.stage_result import StageSummary
from plumbob.trainers.metrics.step_record import Listener, StepRecord, WorkerCounts

STAGE = "callbacks"
"""Under which failures of callbacks are reported."""


@dataclass(frozen=True)
class RunEnding:
    """How a run ended.

    Attributes:
        folder: of the run.
        summary: the content of its `summary.json`; None where it did not end well.
        error: what ended it; None where it ended well.
    """

    folder: Path
    summary: Mapping[str, Any] | None
    error: BaseException | None


class RunCallback(Protocol):
    """A class that derives from this one has the methods that it needs; the others do nothing.

    They are called in the process and the thread that runs the run, which waits for them. One that raises
    `RunStopped` ends the run as a person's stop does, once the step is kept. What else one raises is reported, the
    first time, and the run continues: the hours of a run are worth more than what is reported of it.
    """

    def step_ended(self, record: StepRecord) -> None:
        """A step is done, and in `metrics.jsonl`."""
        return

    def checkpoint_saved(self, stage: str, checkpoint: Checkpoint) -> None:
        """A checkpoint stands, whole."""
        return

    def run_ended(self, ending: RunEnding) -> None:
        """The last call, also of a run that failed; what it raises changes nothing."""
        return


class CallbackListener:
    """Passes on what it hears, and tells the callbacks."""

    def __init__(self, listener: Listener, callbacks: Sequence[RunCallback]) -> None:
        self._listener, self._callbacks = listener, tuple(callbacks)
        self._failed: set[int] = set()

    def stage_began(self, stage: str) -> None:
        self._listener.stage_began(stage)

    def stepped(self, record: StepRecord) -> None:
        self._listener.stepped(record)
        self._call(lambda one: one.step_ended(record))

    def notify(self, stage: str, message: str) -> None:
        self._listener.notify(stage, message)

    def workers_changed(self, workers: WorkerCounts) -> None:
        self._listener.workers_changed(workers)

    def stage_ended(self, stage: str, summary: StageSummary) -> None:
        self._listener.stage_ended(stage, summary)

    def saved(self, stage: str, checkpoint: Checkpoint) -> None:
        """Called when a checkpoint stands. Raises RunStopped when a callback does."""
        self._call(lambda one: one.checkpoint_saved(stage, checkpoint))

    def ended(self, ending: RunEnding) -> None:
        """Called once. Raises nothing."""
        with suppress(RunStopped):  # It has ended.
            self._call(lambda one: one.run_ended(ending))

    def _call(self, call: Callable[[RunCallback], None]) -> None:
        for number, callback in enumerate(self._callbacks):
            try:
                call(callback)
            except RunStopped:
                raise
            except Exception as error:
                self._say_failure(number, type(callback).__name__, error)

    def _say_failure(self, number: int, name: str, error: Exception) -> None:
        if number in self._failed:
            return
        self._failed.add(number)
        lines = "".join(f"\n  {line}" for line in users_lines(error, __file__))
        self._listener.notify(
            STAGE,
            f"{name} failed: {type(error).__name__}: {first_line(error)}; the run continues, and further failures of "
            f"it are not told{lines}",
        )
