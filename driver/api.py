"""The Python API: run, resume, evaluate and plan, from a configuration to a folder with its result.

    from plumbob.configs.load_run import load_run
    from plumbob.driver.api import run

    result = run(load_run("toy", ["ppo.num_steps=20"]), listener)
    result.summary["stages"]["ppo"]["reward"]

`listener` is whatever has the methods of `trainers.metrics.step_record.Listener`; `callbacks` are for a program's own
work at each step, at each checkpoint and at the end. A run that is running is looked at, and changed, by
`driver.steering`.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from plumbob.cluster.admission import check_local, joined_notes
from plumbob.cluster.resources import memory_lines, resource_needs
from plumbob.cluster.session import Session
from plumbob.configs.base import IsFunction
from plumbob.configs.paths import with_absolute_paths
from plumbob.configs.resolved_copy import RESOLVED_FILE, read_resolved, when_begun, write_resolved
from plumbob.configs.resume_rules import changes, check_changes
from plumbob.configs.runs import AnyRun, EvalRun, Run
from plumbob.configs.schema import marked_texts
from plumbob.configs.settings.workers import ClusterSettings
from plumbob.core.atomic_files import flush
from plumbob.core.disk_errors import replace_text
from plumbob.core.errors import UserError
from plumbob.core.programs.function_source import source_digests
from plumbob.core.stop_signals import stop_signals
from plumbob.data.bounded_templates import TemplateClock, template_time
from plumbob.driver.callbacks.run_callbacks import CallbackListener, RunCallback, RunEnding
from plumbob.driver.cpu_threads import with_threads
from plumbob.driver.default_baseline import with_default_baseline
from plumbob.driver.failure_advice import with_failure_advice
from plumbob.driver.learner_notes import learner_notes
from plumbob.driver.peak_memory import PeakMemory
from plumbob.driver.planning.expected_memory import expected_memory
from plumbob.driver.planning.plan_run import plan_prepared
from plumbob.driver.planning.run_plan import RunPlan
from plumbob.driver.prepared_run import PreparedRun, prepare_run, stage_of
from plumbob.driver.run_control import controlled_run
from plumbob.driver.run_folder.connection_file import ConnectionFile
from plumbob.driver.run_folder.driver_log import kept_in
from plumbob.driver.run_folder.event_log import EventLog
from plumbob.driver.run_folder.folder import (
    LOGS_FOLDER,
    SUMMARY_FILE,
    check_writable,
    removed_if_nothing_computed,
    run_folder,
    summary_of_finished,
)
from plumbob.driver.run_folder.inputs import check_models, check_rows, check_sources, new_digests, write_digests
from plumbob.driver.run_folder.lock import locked_folder
from plumbob.driver.stages.evaluation import run_eval
from plumbob.driver.stages.evaluation_input import prepare_eval
from plumbob.driver.stages.stage import StageContext
from plumbob.driver.stewardship.run_data_report import run_data_report, write_data_report
from plumbob.trainers.metrics.sinks.trackers import check_trackers, opened_trackers
from plumbob.trainers.metrics.stage_result import StageSummary
from plumbob.trainers.metrics.step_record import Listener

RESUME_WAIT_S = 60.0
"""How long a resumed run waits at least for capacity: the workers of a driver that just died still hold some."""


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    Attributes:
        summary: the content of its `summary.json`.
        was_finished: before it was resumed, which changed nothing.
    """

    folder: Path
    summary: dict[str, Any]
    was_finished: bool = False


def run(
    config: AnyRun, listener: Listener, session: Session | None = None, callbacks: Sequence[RunCallback] = ()
) -> RunResult:
    """Run everything that the configuration asks for.

    Args:
        listener: hears of stages, steps and messages as they come.
        session: one that is open, whose workers are used; None opens one for this run alone.
        callbacks: told of each step, each checkpoint and the end (`driver.callbacks.run_callbacks`).

    Raises:
        UserError: something in the settings or the input that the user can fix, or `session` has other settings of the
            cluster; nothing has been written.
        RunFailed: it failed on the way; the folder keeps the last checkpoint, and the message says how to continue.
        RunPreempted: SIGTERM or SIGHUP arrived, which are this function's until it returns if it is called in the main
            thread; what was learnt is saved.
    """
    folder = writable_folder(config)
    with _locked(folder, listener):
        if (folder / RESOLVED_FILE).exists():
            raise UserError(
                f"{folder}: there is a run already; resume it with `plumbob resume {folder}`, or give another name="
            )
        with kept_in(folder, listener) as kept:
            return _execute(config, folder, kept, session, callbacks)


def resume(
    folder: Path,
    listener: Listener,
    session: Session | None = None,
    overrides: Sequence[str] = (),
    callbacks: Sequence[RunCallback] = (),
) -> RunResult:
    """Resume a run from its newest whole checkpoint, with the settings that it had; of a finished one change nothing.

    Args:
        listener, session, callbacks: as of `run`.
        overrides: `a.b=c` of settings that do not change what is computed (`configs.resume_rules`); they stay changed.

    Raises:
        UserError: something in the overrides, the settings or the input that the user can fix.
        RunFailed: as `run`; or checkpoints were made and none is whole.
    """
    folder = folder.expanduser()
    return _resume(read_resolved(folder, overrides), folder, listener, session, callbacks)


def run_or_resume(
    config: AnyRun, listener: Listener, session: Session | None = None, callbacks: Sequence[RunCallback] = ()
) -> RunResult:
    """`run`, or `resume` where the run has begun, which it must have done with the same settings.

    For whatever starts a run more than once. Raises as these do; UserError also for a setting that may not change.
    """
    folder = writable_folder(config)
    if not (folder / RESOLVED_FILE).exists():
        return run(config, listener, session, callbacks)
    began = read_resolved(folder)
    config = _located(config.model_copy(update={"storage": began.storage}))
    check_changes(type(began), changes(began.model_dump(mode="json"), config.model_dump(mode="json")))
    return _resume(config, folder, listener, session, callbacks)


def _resume(
    config: AnyRun, folder: Path, listener: Listener, session: Session | None, callbacks: Sequence[RunCallback]
) -> RunResult:
    finished = summary_of_finished(folder)
    if finished is not None:
        return RunResult(folder, finished, was_finished=True)
    with _locked(folder, listener), kept_in(folder, listener) as kept:
        return _execute(config, folder, kept, session, callbacks, RESUME_WAIT_S)


def evaluate(config: EvalRun, listener: Listener, session: Session | None = None) -> dict[str, Any]:
    """Measure a reward model on pairs, a policy on prompts, or both. Leaves logs behind, no result.

    Arguments and errors are those of `run`.
    """
    folder = writable_folder(config)
    config = with_threads(with_default_baseline(with_absolute_paths(config)))
    with stop_signals.handled("the evaluation ends"):
        with template_time(datetime.now()) as clock:
            data = prepare_eval(config)
        data = replace(data, notes=data.notes + _date_notes(clock))
        needs, expected = resource_needs(config), expected_memory(config)
        check_local(config.cluster, needs, expected, is_running=session is not None)
        with _opened(session, config.cluster, folder, listener) as opened:
            opened.admit(needs)
            for note in joined_notes(config.cluster, needs, expected):
                listener.notify("cluster", note)
            with PeakMemory() as memory:
                listener.stage_began("eval")
                began = time.monotonic()
                result = run_eval(config, data, opened)
                listener.stage_ended("eval", StageSummary(result, time.monotonic() - began, memory.take()))
    return result.as_dict()


def plan(config: AnyRun) -> RunPlan:
    """What the run needs against what its cluster has. A local one is this machine, and is not started.

    Raises:
        UserError: the run would be refused whatever the cluster has.
    """
    writable_folder(config)
    config = _located(config)
    return plan_prepared(config, _begun_now(config), _begun_now)


def check_input(config: AnyRun) -> tuple[str, ...]:
    """Read and check all input, and start nothing: sentences about it and the memory expected. Raises UserError."""
    config = _located(config)
    prepared = _begun_now(config)
    expected = expected_memory(config, prepared.sizes().learnt)
    lines = memory_lines(resource_needs(config), expected, hosts=())
    return (*prepared.notes, *(f"memory: {line}" for line in lines))


def _begun_now(config: AnyRun) -> PreparedRun:
    """What the run would be if it began now, with all that is to be told of its input."""
    check_trackers(config)
    with template_time(datetime.now()) as clock:
        prepared = prepare_run(config)
    return replace(prepared, notes=prepared.notes + _date_notes(clock) + learner_notes(config))


def _located(config: AnyRun) -> AnyRun:
    """The same run, whatever the working folder: absolute paths, and of an evaluation also what it compares with."""
    located = with_absolute_paths(config)
    return with_default_baseline(located) if isinstance(located, EvalRun) else located


def writable_folder(config: Run) -> Path:
    """Where a run goes. Raises UserError when that cannot be written."""
    folder = run_folder(config)
    check_writable(folder)
    return folder


@contextmanager
def _locked(folder: Path, listener: Listener) -> Iterator[None]:
    """A run's folder, ours alone, until a signal ends the run: a failure says what it leaves there.

    A user error that is found late leaves nothing, nor does a stop before anything was computed.
    """
    with (
        with_failure_advice(folder),
        stop_signals.handled(
            f"the run ends its step, is saved and stops; another signal ends it at once; resume it with: "
            f"plumbob resume {folder}"
        ),
        locked_folder(folder, lambda message: listener.notify("cluster", message)) as is_ours,
        removed_if_nothing_computed(folder) if is_ours else nullcontext(),
    ):
        yield


@contextmanager
def _opened(session: Session | None, cluster: ClusterSettings, folder: Path, listener: Listener) -> Iterator[Session]:
    """The session that was given, if it is as the run's settings say, or else one of the run's own."""
    if session is None:
        with Session(cluster, folder / LOGS_FOLDER, listener) as own:
            yield own
        return
    for key, value in cluster:
        given = getattr(session.cluster, key)
        if given != value:
            raise UserError(
                f"cluster.{key}={value}: the session that the run was given has cluster.{key}={given}; give the run "
                f"the settings of its session, or no session"
            )
    yield session


def _execute(
    config: AnyRun,
    folder: Path,
    listener: Listener,
    session: Session | None,
    callbacks: Sequence[RunCallback],
    min_wait_s: float = 0.0,
) -> RunResult:
    called = CallbackListener(listener, callbacks)
    try:
        result = _run_stages(config, folder, called, session, min_wait_s)
    except BaseException as error:
        called.ended(RunEnding(folder, None, error))
        raise
    called.ended(RunEnding(folder, result.summary, None))
    return result


def _run_stages(
    config: AnyRun, folder: Path, listener: CallbackListener, session: Session | None, min_wait_s: float
) -> RunResult:
    began = time.monotonic()
    config = _located(config)
    check_trackers(config)
    check_rows(config, folder)
    check_sources(config, folder)
    started, stage = when_begun(folder), stage_of(config, folder)
    with template_time(started) as clock:
        run_stages = prepare_run(with_threads(config))
    check_models(config, folder)
    digests, data_report = new_digests(config, folder), run_data_report(config, folder)
    needs, expected = resource_needs(config), expected_memory(config)
    check_local(config.cluster, needs, expected, is_running=session is not None)
    events = EventLog(folder)
    wait_s = config.cluster.wait_s if session is not None else max(config.cluster.wait_s, min_wait_s)
    cluster = config.cluster.model_copy(update={"wait_s": wait_s})
    with (
        events.of_end(),
        _opened(session, cluster, folder, listener) as opened,
        controlled_run(opened, config.name, needs, folder, listener, listener.saved) as control,
        PeakMemory() as memory,
        template_time(started),
    ):
        for note in joined_notes(config.cluster, needs, expected):
            listener.notify("cluster", note)
        for note in _date_notes(clock) + learner_notes(config):
            listener.notify(stage, note)
        write_resolved(config, folder, started, source_digests(marked_texts(config, IsFunction)))
        write_digests(digests, folder)
        write_data_report(data_report, folder)
        (folder / SUMMARY_FILE).unlink(missing_ok=True)  # A run that has one is finished, and this one is not.
        flush(folder)
        with (
            ConnectionFile(folder, config.name, opened.cluster),
            opened_trackers(config, folder.resolve(), lambda message: listener.notify("sinks", message)) as trackers,
        ):
            context = StageContext(opened, control, folder.resolve(), control.listener, memory, stage, trackers)
            stages = run_stages(context)
    summary = {
        "name": config.name,
        "kind": config.kind,
        "seed": config.seed,
        "seconds_total": time.monotonic() - began,
        "stages": stages,
    }
    replace_text(folder / SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
    events.record("finished")
    return RunResult(folder, summary)


def _date_notes(clock: TemplateClock) -> tuple[str, ...]:
    """For a run whose chat template has asked for the date."""
    if not clock.was_read:
        return ()
    date = clock.now.strftime("%Y-%m-%d")
    return (f"the chat template writes the date: a run has that of its beginning, {date}, when it resumes too",)
