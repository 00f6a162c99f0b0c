"""One stage on a session: what it is given, what it leaves, and how it outlives the loss of its learners."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from plumbob.cluster.failures import LearnersLost
from plumbob.cluster.session import Session
from plumbob.core.stop_signals import stop_signals
from plumbob.data.rendered_rows import RenderedRow
from plumbob.driver.peak_memory import PeakMemory
from plumbob.driver.run_control import RunControl
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.step_record import Listener


@dataclass(frozen=True)
class StageContext:
    """What every stage is given.

    Attributes:
        folder: where the stage's metrics, checkpoints and result go.
    """

    session: Session
    control: RunControl
    folder: Path
    listener: Listener
    memory: PeakMemory


@dataclass(frozen=True)
class StageResult:
    """What a stage's work comes to.

    Attributes:
        metrics: name -> number, text, or a list or mapping of them, as JSON has them.
        notes: sentences for a person; None where the stage has nothing that it could say.
    """

    metrics: Mapping[str, Any]
    notes: tuple[str, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON on disk and for scripts."""
        return {**self.metrics, **({} if self.notes is None else {"notes": list(self.notes)})}


@dataclass(frozen=True)
class StageSummary:
    """A stage's part of `summary.json`.

    Attributes:
        result: what its work came to.
        seconds: from its beginning, the start of its workers included.
        peak_memory_gib: of the driver and its workers on this host.
    """

    result: StageResult
    seconds: float
    peak_memory_gib: float

    def as_dict(self) -> dict[str, Any]:
        """As JSON on disk."""
        return {**self.result.as_dict(), "seconds": self.seconds, "peak_memory_gib": self.peak_memory_gib}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """What `as_dict` gave."""
        metrics = dict(content)
        seconds, peak, notes = metrics.pop("seconds"), metrics.pop("peak_memory_gib"), metrics.pop("notes", None)
        return cls(StageResult(metrics, None if notes is None else tuple(notes)), seconds, peak)


StageBody = Callable[[StageContext], StageResult]


@dataclass(frozen=True)
class PreparedStage:
    """A stage whose input has been read and found good; called, it runs.

    Attributes:
        notes: sentences for a person about its input, known before it runs.
        rows: one of each input as the model sees it.
        longest: tokens of the longest sequence that its learners compute; None where that is not known before it runs.
    """

    notes: tuple[str, ...]
    body: StageBody
    rows: tuple[RenderedRow, ...] = ()
    longest: int | None = None

    def __call__(self, context: StageContext) -> StageResult:
        return self.body(context)


def run_stage(prepared: StageBody, context: StageContext, stage: str) -> StageSummary:
    """Run a prepared stage, and tell the listener of its beginning and end."""
    began = time.monotonic()
    context.memory.take()
    context.listener.stage_began(stage)
    result = _run_with_restarts(prepared, context)
    summary = StageSummary(result, time.monotonic() - began, context.memory.take())
    context.listener.stage_ended(stage, summary.as_dict())
    return summary


def _run_with_restarts(prepared: StageBody, context: StageContext) -> StageResult:
    """A stage that lost its learners resumes from its newest checkpoint, as a resumed run does; other workers stay."""
    while True:
        stop_signals.work_ended()  # Until its workers are there and begin, nothing is lost by stopping.
        try:
            return prepared(context)
        except LearnersLost as lost:
            context.session.replace_learners(lost)


def training_stage(
    notes: tuple[str, ...],
    train: Callable[[StageContext, MetricsLog], Mapping[str, Any]],
    rows: tuple[RenderedRow, ...] = (),
    longest: int | None = None,
) -> PreparedStage:
    """A stage that logs metrics. It first says what was left out of its input, and at its end what `train` found.

    Args:
        train: does the work; gives the stage's metrics, sentences for a person among them as `notes`.
        longest: as of `PreparedStage`.
    """

    def run(context: StageContext) -> StageResult:
        for note in notes:
            context.listener.notify(context.folder.name, note)
        with MetricsLog(context.folder, context.listener) as log:
            metrics = dict(train(context, log))
        found = tuple(metrics.pop("notes", ()))
        for note in found:
            context.listener.notify(context.folder.name, note)
        return StageResult(metrics, (*notes, *found))

    return PreparedStage(notes, run, rows, longest)
