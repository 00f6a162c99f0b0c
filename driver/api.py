"""The Python API of a run: from a configuration to a folder with its result."""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from plumbob.cluster.admission import check_local
from plumbob.cluster.connection import connect
from plumbob.cluster.nodes import hosts, this_machine
from plumbob.cluster.placement import Plan
from plumbob.cluster.placement import plan as plan_on
from plumbob.cluster.resources import needs_of
from plumbob.cluster.session import Session
from plumbob.configs.paths import with_absolute_paths
from plumbob.configs.resolved_copy import RESOLVED_FILE, read_resolved, write_resolved
from plumbob.configs.resume_rules import changes, check_changes
from plumbob.configs.runs import AnyRun, EvalRun, PipelineRun, Run
from plumbob.core.atomic_files import flush
from plumbob.core.disk_errors import StorageFailed, replace_text, storage_reason
from plumbob.core.errors import NotFinite, RunFailed, UserError
from plumbob.driver.peak_memory import PeakMemory
from plumbob.driver.pipeline.pipeline import run_pipeline
from plumbob.driver.pipeline.pipeline_data import prepare_files
from plumbob.driver.run_folder.connection_file import ConnectionFile
from plumbob.driver.run_folder.folder import SUMMARY_FILE, check_writable, nothing_left
from plumbob.driver.run_folder.inputs import check_models, note_models
from plumbob.driver.run_folder.lock import owned
from plumbob.driver.stages.evaluation import prepare_eval, run_eval
from plumbob.driver.stages.prepare import Figures, StageContext, prepare, run_stage
from plumbob.reward.scorer import ScoreError
from plumbob.trainers.learner.checkpoint import Checkpoints
from plumbob.trainers.metrics.metrics_log import Listener

RESUME_WAIT_S = 60.0
"""What a resumed run waits at least for room on its cluster: the workers of a driver that just died still hold some."""


@dataclass(frozen=True)
class RunResult:
    """What a run left behind: its folder, and the content of its `summary.json`."""

    folder: Path
    summary: dict[str, Any]


def run(config: AnyRun, listener: Listener, session: Session | None = None) -> RunResult:
    """Run everything that the configuration asks for.

    Args:
        session: one that is open, whose workers are used again; None opens one for this run.

    Raises:
        UserError: a mistake in settings or input; nothing has been written.
        RunFailed: it went wrong on the way; the folder keeps the last checkpoint.
    """
    folder = writable_folder(config)
    with _claimed(folder, listener):
        if (folder / RESOLVED_FILE).exists():
            raise UserError(
                f"{folder}: there is a run already; go on with `plumbob resume {folder}`, or give another name="
            )
        return _execute(config, folder, listener, session)


def resume(
    folder: Path, listener: Listener, session: Session | None = None, overrides: Sequence[str] = ()
) -> RunResult:
    """Go on with a run from its newest whole checkpoint, with the settings that it had.

    Args:
        overrides: `a.b=c` of settings that do not change what is computed (`configs.resume_rules`); they stay changed.

    Raises:
        UserError: a mistake in the overrides, the settings or the input.
        RunFailed: as `run`; or checkpoints were made and none is whole.
    """
    folder = folder.expanduser()
    config = read_resolved(folder, overrides)
    with _claimed(folder, listener):
        return _execute(config, folder, listener, session, RESUME_WAIT_S)


def run_or_resume(config: AnyRun, listener: Listener, session: Session | None = None) -> RunResult:
    """`run`, or `resume` where the run has begun, which it must have done with the same settings.

    For whatever starts a run more than once. Raises as these do; UserError also for a setting that may not change.
    """
    folder = writable_folder(config)
    if not (folder / RESOLVED_FILE).exists():
        return run(config, listener, session)
    began = read_resolved(folder)
    config = with_absolute_paths(config.model_copy(update={"storage": began.storage}))
    check_changes(type(began), changes(began.model_dump(mode="json"), config.model_dump(mode="json")))
    with _claimed(folder, listener):
        return _execute(config, folder, listener, session, RESUME_WAIT_S)


def evaluate(config: EvalRun, listener: Listener, session: Session | None = None) -> Figures:
    """Measure a reward model on pairs, a policy on prompts, or both. Leaves logs behind, no result."""
    folder = writable_folder(config)
    config = with_absolute_paths(config)
    data = prepare_eval(config)
    check_local(config.cluster, needs_of(config))
    own = Session(config.cluster, folder / "logs", listener)
    with own if session is None else nullcontext(session) as opened:
        opened.check(needs_of(config))
        listener.stage_began("eval")
        figures = run_eval(config, data, opened)
        listener.stage_ended("eval", figures)
    return figures


def plan(config: AnyRun) -> Plan:
    """What the run needs against what its cluster has. A local one is this machine, and is not started.

    Raises:
        UserError: the run would be refused whatever the cluster has.
    """
    writable_folder(config)
    _prepare(with_absolute_paths(config))
    if config.cluster.address == "local":
        return plan_on(needs_of(config), this_machine(config.cluster))
    connect(config.cluster)
    try:
        return plan_on(needs_of(config), hosts(free=True))
    finally:
        ray.shutdown()


def writable_folder(config: Run) -> Path:
    """Where a run goes. Raises UserError when that cannot be written."""
    folder = Path(config.storage.path).expanduser() / config.name
    check_writable(folder)
    return folder


@contextmanager
def _claimed(folder: Path, listener: Listener) -> Iterator[None]:
    """A run's folder, ours alone: a failure says what it leaves there, and a mistake that is found late nothing."""
    with (
        telling_how_to_go_on(folder),
        owned(folder, lambda message: listener.said("cluster", message)) as is_ours,
        nothing_left(folder) if is_ours else nullcontext(),
    ):
        yield


def _execute(
    config: AnyRun, folder: Path, listener: Listener, session: Session | None, least_wait_s: float = 0.0
) -> RunResult:
    began = time.monotonic()
    config = with_absolute_paths(config)
    body = _prepare(config)
    check_models(config, folder)
    check_local(config.cluster, needs_of(config))
    patient = config.cluster.model_copy(update={"wait_s": max(config.cluster.wait_s, least_wait_s)})
    own = Session(patient, folder / "logs", listener)
    with (
        own if session is None else nullcontext(session) as opened,
        opened.running(config.name, needs_of(config), folder, listener) as watched,
        PeakMemory() as memory,
    ):
        write_resolved(config, folder)
        note_models(config, folder)
        (folder / SUMMARY_FILE).unlink(missing_ok=True)  # A run that had ended is at work on its result again.
        flush(folder)
        with ConnectionFile(folder, config.name, opened.cluster):
            stages = body(StageContext(opened, folder.resolve(), watched, memory))
    summary = {
        "name": config.name,
        "kind": config.kind,
        "seed": config.seed,
        "seconds_total": time.monotonic() - began,
        "stages": stages,
    }
    replace_text(folder / SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
    return RunResult(folder, summary)


def _prepare(config: AnyRun) -> Callable[[StageContext], dict[str, Figures]]:
    """Read and check the input now; the function that comes back does the work."""
    match config:
        case PipelineRun():
            files = prepare_files(config)
            return lambda scene: run_pipeline(config, files, scene)
        case EvalRun():
            data = prepare_eval(config)
            return lambda scene: {"eval": run_stage(lambda inner: run_eval(config, data, inner.session), scene, "eval")}
        case _:
            prepared = prepare(config)
            return lambda scene: {config.kind: run_stage(prepared, scene, config.kind)}


@contextmanager
def telling_how_to_go_on(folder: Path) -> Iterator[None]:
    """A failure says what it leaves; an error of the disk becomes one, and says how much room there is."""
    try:
        yield
    except RunFailed as error:
        room = f"; {free_space(folder)}" if isinstance(error, StorageFailed) else ""
        raise type(error)(f"{error}{room}\n{how_to_go_on(folder, error)}") from error
    except Exception as error:
        reason = storage_reason(error)
        if reason is None:
            raise
        failed = StorageFailed(f"{reason}; {free_space(folder)}")
        raise StorageFailed(f"{failed}\n{how_to_go_on(folder, failed)}") from error


def free_space(folder: Path) -> str:
    """Of the file system that the folder is on, or would be."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return f"{shutil.disk_usage(nearest).free / 2**20:,.1f} MiB are free in {folder}"


def how_to_go_on(folder: Path, error: RunFailed) -> str:
    """What a failed run leaves: its last good checkpoint, and what goes on from it, where going on can help."""
    named = sorted(folder.glob("**/checkpoints/latest"), key=lambda path: path.stat().st_mtime)
    logs = f"what it printed is in {folder / 'logs'}"
    if not named:
        return f"no checkpoint had been made; {logs}"
    try:
        checkpoint = Checkpoints(named[-1].parent, 1).newest(lambda _: None)
    except RunFailed:
        checkpoint = None
    if checkpoint is None:
        return f"no checkpoint in {named[-1].parent} is whole; {logs}"
    last = f"the last good checkpoint is {checkpoint.folder}"
    match error:
        case NotFinite() | ScoreError():
            return (
                f"{last}; resuming would do the same again: begin a new run with a lower learning_rate, or without the "
                f"data that is named"
            )
        case StorageFailed():
            return f"{last}; when the disk can be written again, go on with: plumbob resume {folder}"
        case _:
            return f"{last}; go on with: plumbob resume {folder}"
