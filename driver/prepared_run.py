"""From the settings of a run, of whatever kind, to what does its work: its input is read and checked first."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from plumbob.configs.paths import with_absolute_paths
from plumbob.configs.runs import AnyRun, EvalRun, PipelineRun
from plumbob.configs.settings.rewards import CombinedReward
from plumbob.data.rendered_rows import RenderedRow
from plumbob.data.texts.bounded_templates import TemplateClock, template_time
from plumbob.driver.default_baseline import with_default_baseline
from plumbob.driver.energy.energy_meter import check_energy
from plumbob.driver.learner_notes import learner_notes
from plumbob.driver.pipeline.pipeline import run_pipeline
from plumbob.driver.pipeline.pipeline_data import prepare_files
from plumbob.driver.stages.evaluating import evaluation
from plumbob.driver.stages.prepare import prepare
from plumbob.driver.stages.stage import InputSizes, PreparedStage, StageContext, run_stage
from plumbob.reward.bias.bias_probe import BiasProbe
from plumbob.trainers.metrics.sinks.jsonl import read_metrics
from plumbob.trainers.metrics.sinks.trackers import check_trackers
from plumbob.trainers.metrics.stage_result import FinishedStages


@dataclass(frozen=True)
class PreparedRun:
    """What does the work of a run; what is known of its input, as `PreparedStage` has it."""

    notes: tuple[str, ...]
    rows: tuple[RenderedRow, ...]
    body: Callable[[StageContext], FinishedStages]
    sizes: Callable[[], InputSizes] = InputSizes

    def __call__(self, context: StageContext) -> FinishedStages:
        return self.body(context)


def prepare_run(config: AnyRun) -> PreparedRun:
    """Read and check the input now; the body that comes back does the work."""
    match config:
        case PipelineRun():
            files = prepare_files(config)
            # Its reward model is yet to be trained: the texts alone are looked at.
            notes = () if config.bias is None else (BiasProbe(config.bias, CombinedReward(())).note(),)
            return PreparedRun(
                files.notes + notes, files.rows, lambda context: run_pipeline(config, files, context), files.sizes
            )
        case EvalRun():
            return _of_one_stage(evaluation.prepare(config))
        case _:
            return _of_one_stage(prepare(config))


def stage_of(config: AnyRun, folder: Path) -> str:
    """What the one stage of a run is called: as in the metrics that are in its folder, or else as its settings say.

    An older run called every stage of online alignment `ppo`.
    """
    return next((record.stage for record in read_metrics(folder)), config.stage)


def _of_one_stage(prepared: PreparedStage) -> PreparedRun:
    return PreparedRun(
        prepared.notes,
        prepared.rows,
        lambda context: FinishedStages({context.stage: run_stage(prepared, context)}),
        prepared.sizes,
    )


def begun_now(config: AnyRun) -> PreparedRun:
    """What the run would be if it began now, with all that is to be told of its input."""
    with template_time(datetime.now()) as clock:
        prepared = prepare_run(config)
    return replace(prepared, notes=prepared.notes + date_notes(clock) + learner_notes(config))


def runnable(config: AnyRun) -> AnyRun:
    """The same run from any working folder: absolute paths, and of an evaluation also what it compares with.

    Raises:
        UserError: a package that one of its sinks needs is not installed, or what is compared with is not there.
    """
    if isinstance(config, EvalRun):
        config = with_default_baseline(config)
    check_trackers(config)
    check_energy(config.energy)
    return with_absolute_paths(config)


def date_notes(clock: TemplateClock) -> tuple[str, ...]:
    """For a run whose chat template has asked for the date."""
    if not clock.was_read:
        return ()
    date = clock.now.strftime("%Y-%m-%d")
    return (f"the chat template writes the date: a run has that of its beginning, {date}, when it resumes too",)
