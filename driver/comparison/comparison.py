"""A comparison of methods (`MethodComparison`): a run of its own for each, in turn on the same Ray cluster."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from plumbob.cluster.resources import resource_needs, total_bytes
from plumbob.cluster.session import Session
from plumbob.configs.load_run import load_run
from plumbob.configs.paths import named_inputs, with_absolute_paths
from plumbob.configs.resolved_copy import RESOLVED_FILE
from plumbob.configs.runs import AnyRun, DpoRun, KtoRun, SftRun
from plumbob.configs.settings.training import EpochSettings
from plumbob.core.disk_errors import replace_text
from plumbob.core.errors import RunFailed, RunStopped, UserError
from plumbob.core.process_ends.stop_signals import stop_signals
from plumbob.driver.api import plan, run_or_resume
from plumbob.driver.comparison.compared_methods import ComparedMethod
from plumbob.driver.comparison.comparison_row import ComparisonRow, NotCompared, Result, comparison_row
from plumbob.driver.planning.expected_memory import expected_memory
from plumbob.driver.planning.expected_policy import expected_policy
from plumbob.driver.prepared_run import prepare_run
from plumbob.driver.run_folder.folder import LOGS_FOLDER, run_folder
from plumbob.driver.run_folder.inputs import check_models, check_rows
from plumbob.models.loading import open_policy
from plumbob.trainers.metrics.step_record import Listener

COMPARISON_FILE = "comparison.json"
ComparedRun = SftRun | DpoRun | KtoRun


@dataclass(frozen=True)
class ComparedWork:
    """What is done once with each method.

    Attributes:
        config: a preset or a file.
        overrides: of its settings, for all methods.
        base: the run as these are.
        rates: learning rates that each method is tried with; empty takes its own.
    """

    config: str
    overrides: tuple[str, ...]
    base: ComparedRun
    rates: tuple[float, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the methods' runs are."""
        return run_folder(self.base)

    def runs_of(self, method: ComparedMethod) -> Iterator[ComparedRun]:
        """The method's runs, one for each of its learning rates. Raises UserError where a setting refuses it."""
        for rate in self.rates or (method.rate_factor * stage_settings(self.base).learning_rate,):
            name = f"{method.name}-{rate:g}" if self.rates else method.name
            own_folder = (f"name={name}", f"storage.path={json.dumps(str(self.folder))}")
            learning_rate = f"{self.base.stage}.learning_rate={rate!r}"
            yield compared_run(self.config, self.overrides, [learning_rate, *method.overrides, *own_folder])


def stage_settings(run: ComparedRun) -> EpochSettings:
    settings: EpochSettings = getattr(run, run.stage)
    return settings


def compared_run(config: str, overrides: Sequence[str], of_method: Sequence[str] = ()) -> ComparedRun:
    """The run of these settings, whose held-out records are measured before it too. UserError where there is none."""
    run: AnyRun = load_run(config, overrides, later=of_method)
    if not isinstance(run, ComparedRun):
        raise UserError(f"{config}: kind is {run.kind}; methods are compared by a run of kind sft, dpo or kto")
    return run.model_copy(update={run.stage: stage_settings(run).model_copy(update={"evaluate_first": True})})


def compared_work(config: str, overrides: Sequence[str], rates: Sequence[float] = ()) -> ComparedWork:
    """Raises UserError where the settings are not those of a stage that can be compared, or its input is wrong."""
    base = compared_run(config, overrides)
    if not any(override.startswith("name=") for override in overrides):
        # The same comparison, once more, finds the runs that it has made already.
        base = base.model_copy(update={"name": f"{Path(config).stem}-methods"})
    opened = open_policy(base.policy.ref)
    if opened.source.adapter is not None:
        raise UserError(
            f"{base.policy.ref}: is an adapter, which every method would train further as what it is; give its base, "
            f"{opened.source.base}, or merge the two (plumbob adapters merge --full)"
        )
    plan(base)
    return ComparedWork(config, tuple(overrides), base, tuple(rates))


class MethodComparison:
    """Results by method, of one piece of work.

    Args:
        listener: hears of every run.
    """

    def __init__(self, work: ComparedWork, session: Session, listener: Listener) -> None:
        self.work, self.results = work, list[Result]()
        self._session, self._listener = session, listener

    def measure(self, method: ComparedMethod) -> Result:
        """Run the work with the method, and write down what there is by now.

        A run that has finished before is not made again; one that was interrupted is resumed. A method that is refused,
        or whose runs failed, has the reason in its place.

        Raises:
            RunStopped: the run was asked to stop.
        """
        result = self._result_of(method)
        if isinstance(result, NotCompared):
            self._listener.notify(self.work.base.stage, f"{method.name}: not compared: {result.reason}")
        self.results.append(result)
        write_results(self.work.folder, self.results)
        return result

    def _result_of(self, method: ComparedMethod) -> Result:
        """Of several learning rates the row of the lowest held-out loss."""
        rows, reasons = [], []
        try:
            runs = list(self.work.runs_of(method))
        except UserError as error:
            return NotCompared(method.name, str(error))
        for run in runs:
            self._listener.notify(run.stage, f"method {run.name}")
            try:
                rows.append(self._row_of(method, run))
            except RunStopped:
                raise
            except (UserError, RunFailed) as error:
                reasons.append(str(error))
        return min(rows, key=lambda row: row.heldout_loss) if rows else NotCompared(method.name, reasons[0])

    def _row_of(self, method: ComparedMethod, run: ComparedRun) -> ComparisonRow:
        expected = expected_memory(run, prepare_run(run).sizes().learnt)  # No plan: this process is on the cluster.
        _check_input(run)
        done = run_or_resume(run, self._listener, self._session)
        self._session.end_learners()  # The next one's memory is to be its own.
        return comparison_row(
            method.name,
            stage_settings(run),
            expected_policy(run.policy.ref, run.policy.tuning).num_trained,
            total_bytes(resource_needs(run), expected) / 2**30 if expected else None,
            done.folder,
            done.summary["stages"][run.stage],
        )


def _check_input(run: ComparedRun) -> None:
    """Raises UserError when a run that is there already read other records, or another model, than there are now."""
    folder = run_folder(run)
    if (folder / RESOLVED_FILE).exists():
        named = named_inputs(with_absolute_paths(run))
        check_rows(named, folder)
        check_models(named, folder)


@contextmanager
def opened_comparison(work: ComparedWork, listener: Listener) -> Iterator[MethodComparison]:
    """A comparison on a Ray cluster of its own. Raises RunPreempted at SIGTERM or SIGHUP, in a run or between."""
    with (
        stop_signals.handled("the run ends its step and is saved; the same command continues the comparison"),
        Session(work.base.cluster, work.folder / LOGS_FOLDER, listener) as session,
    ):
        yield MethodComparison(work, session, listener)


def write_results(folder: Path, results: Sequence[Result]) -> None:
    content = {"methods": [result.as_dict() for result in results]}
    replace_text(folder / COMPARISON_FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")
