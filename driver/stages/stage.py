"""One stage on a session: what it is given, what it leaves, and how it outlives the loss of its learners."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from plumbob.cluster.failures import LearnersLost, RolloutsLost, WorkerLost
from plumbob.cluster.session import Session
from plumbob.core.process_ends.stop_signals import stop_signals
from plumbob.data.rendered_rows import RenderedRow
from plumbob.driver.energy.energy_meter import EnergyMeter
from plumbob.driver.input_sizes.learner_rows import LearnerRows
from plumbob.driver.input_sizes.token_lengths import InputTokens
from plumbob.driver.peak_memory import PeakMemory
from plumbob.driver.run_control import RunControl
from plumbob.trainers.metrics.energy_use import stage_energy
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.sinks.jsonl import read_metrics
from plumbob.trainers.metrics.sinks.metric_sink import MetricSink
from plumbob.trainers.metrics.stage_result import StageResult, StageSummary
from plumbob.trainers.metrics.step_record import Listener


@dataclass(frozen=True)
class StageContext:
    """What every stage is given.

    Attributes:
        folder: where the stage's metrics, checkpoints and result go.
        stage: what it is called in all that it leaves and says; of a pipeline, before its stages, `pipeline`.
        trackers: what the run's steps are written to elsewhere.
        energy: counts this host's; None where nobody does.
    """

    session: Session
    control: RunControl
    folder: Path
    listener: Listener
    memory: PeakMemory
    stage: str
    trackers: tuple[MetricSink, ...] = ()
    energy: EnergyMeter | None = None


StageBody = Callable[[StageContext], StageResult]


@dataclass(frozen=True)
class InputSizes:
    """How much there is of a run's input.

    Attributes:
        inputs: the records of each, with their tokens.
        learnt: stage -> the rows that its learners compute.
    """

    inputs: tuple[InputTokens, ...] = ()
    learnt: Mapping[str, LearnerRows] = field(default_factory=dict)


@dataclass(frozen=True)
class PreparedStage:
    """A stage whose input has been read and found good; called, it runs.

    Attributes:
        notes: sentences for a person about its input, known before it runs.
        rows: one of each input as the model sees it.
        sizes: finds how much there is of its input, which takes a while of much.
    """

    notes: tuple[str, ...]
    body: StageBody
    rows: tuple[RenderedRow, ...] = ()
    sizes: Callable[[], InputSizes] = InputSizes

    def __call__(self, context: StageContext) -> StageResult:
        return self.body(context)


def run_stage(prepared: StageBody, context: StageContext) -> StageSummary:
    """Run a prepared stage, and tell the listener of its beginning and end."""
    began = time.monotonic()
    context.memory.take()
    earlier = read_metrics(context.folder)
    if context.energy is not None:
        context.energy.take()
    context.listener.stage_began(context.stage)
    result = _run_with_restarts(prepared, context)
    use = None if context.energy is None else context.energy.take()
    energy = None if use is None else stage_energy(use, earlier, read_metrics(context.folder))
    summary = StageSummary(result, time.monotonic() - began, context.memory.take(), energy)
    context.listener.stage_ended(context.stage, summary)
    return summary


def _run_with_restarts(prepared: StageBody, context: StageContext) -> StageResult:
    """A stage that lost its learners, or responses, resumes from its newest checkpoint, as a resumed run does.

    Other workers stay.
    """
    while True:
        stop_signals.work_ended()  # Until its workers are there and begin, nothing is lost by stopping.
        try:
            return prepared(context)
        except LearnersLost as lost:
            context.session.replace_learners(lost)
        except RolloutsLost as lost:
            context.session.worker_lost(WorkerLost(str(lost)), "rollouts")


def training_stage(
    notes: tuple[str, ...],
    train: Callable[[StageContext, MetricsLog], StageResult],
    rows: tuple[RenderedRow, ...] = (),
    sizes: Callable[[], InputSizes] = InputSizes,
) -> PreparedStage:
    """A stage that logs metrics. It first says what was left out of its input, and at its end what `train` found.

    Args:
        train: does the work.
        sizes: as of `PreparedStage`.
    """

    def run(context: StageContext) -> StageResult:
        for note in notes:
            context.listener.notify(context.stage, note)
        control, joules = context.control, None if context.energy is None else context.energy.joules
        hooks = (control.saved, control.is_save_requested, context.trackers, joules)
        with MetricsLog(context.folder, context.listener, *hooks) as log:
            result = train(context, log)
        found = result.notes or ()
        for note in found:
            context.listener.notify(context.stage, note)
        return replace(result, notes=(*notes, *found))

    return PreparedStage(notes, run, rows, sizes)
