"""The Python API: run, resume, evaluate and plan, from a configuration to a folder with its result.

    from plumbob.configs.load_run import load_run
    from plumbob.driver.api import run

    result = run(load_run("toy", ["online.num_steps=20"]), listener)
    result.summary["stages"]["ppo"]["reward"]

`listener` is whatever has the methods of `trainers.metrics.step_record.Listener`; `callbacks` are for a program's own
work at each step, at each checkpoint and at the end. A run that is running is looked at, and changed, by
`driver.steering`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from plumbob.cluster.admission import check_local, joined_notes
from plumbob.cluster.resources import memory_lines, resource_needs
from plumbob.cluster.session import Session
from plumbob.configs.paths import with_absolute_paths
from plumbob.configs.resolved_copy import RESOLVED_FILE, read_resolved
from plumbob.configs.resume_rules import changes, check_changes
from plumbob.configs.runs import AnyRun, EvalRun, Run
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside
from plumbob.core.process_ends.stop_signals import stop_signals
from plumbob.data.texts.bounded_templates import template_time
from plumbob.driver.callbacks.run_callbacks import RunCallback
from plumbob.driver.cpu_threads import with_threads
from plumbob.driver.default_baseline import with_default_baseline
from plumbob.driver.energy.energy_meter import check_energy, opened_meter
from plumbob.driver.execution import execute, locked_run, opened_session
from plumbob.driver.peak_memory import PeakMemory
from plumbob.driver.planning.expected_memory import expected_memory
from plumbob.driver.planning.plan_run import plan_prepared
from plumbob.driver.planning.run_plan import RunPlan
from plumbob.driver.prepared_run import begun_now, date_notes, runnable
from plumbob.driver.run_folder.driver_log import kept_in
from plumbob.driver.run_folder.folder import (
    check_writable,
    run_folder,
    summary_of_finished,
)
from plumbob.driver.stages.evaluating.evaluation import run_eval
from plumbob.driver.stages.evaluating.evaluation_input import prepare_eval
from plumbob.trainers.metrics.energy_use import stage_energy
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
    with locked_run(folder, listener):
        if (folder / RESOLVED_FILE).exists():
            raise UserError(
                f"{folder}: there is a run already; resume it with `plumbob resume {folder}`, or give another name="
            )
        with kept_in(folder, listener) as kept:
            return RunResult(folder, execute(config, folder, kept, session, callbacks))


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
    with from_outside(f"{folder}: cannot be looked at", "give the folder of a run"):
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
    config = runnable(config.model_copy(update={"storage": began.storage}))
    check_changes(type(began), changes(began.model_dump(mode="json"), config.model_dump(mode="json")))
    return _resume(config, folder, listener, session, callbacks)


def _resume(
    config: AnyRun, folder: Path, listener: Listener, session: Session | None, callbacks: Sequence[RunCallback]
) -> RunResult:
    finished = summary_of_finished(folder)
    if finished is not None:
        return RunResult(folder, finished, was_finished=True)
    with locked_run(folder, listener), kept_in(folder, listener) as kept:
        return RunResult(folder, execute(config, folder, kept, session, callbacks, RESUME_WAIT_S))


def evaluate(config: EvalRun, listener: Listener, session: Session | None = None) -> dict[str, Any]:
    """Measure a reward model on pairs, a policy on prompts, or both. Leaves logs behind, no result.

    Arguments and errors are those of `run`.
    """
    folder = writable_folder(config)
    check_energy(config.energy)
    config = with_threads(with_absolute_paths(with_default_baseline(config)))
    with stop_signals.handled("the evaluation ends"):
        with template_time(datetime.now()) as clock:
            data = prepare_eval(config)
        data = replace(data, notes=data.notes + date_notes(clock))
        needs, expected = resource_needs(config), expected_memory(config)
        check_local(config.cluster, needs, expected, is_running=session is not None)
        with opened_session(session, config.cluster, folder, listener) as opened:
            opened.admit(needs)
            for note in joined_notes(config.cluster, needs, expected):
                listener.notify("cluster", note)
            notify = partial(listener.notify, "energy")
            with PeakMemory() as memory, opened_meter(config.energy, notify) as meter:
                listener.stage_began("eval")
                began = time.monotonic()
                result = run_eval(config, data, opened)
                use = None if meter is None else meter.take()
                energy = None if use is None else stage_energy(use, (), ())
                listener.stage_ended("eval", StageSummary(result, time.monotonic() - began, memory.take(), energy))
    return result.as_dict()


def plan(config: AnyRun) -> RunPlan:
    """What the run needs against what its cluster has. A local one is this machine, and is not started.

    Raises:
        UserError: the run would be refused whatever the cluster has.
    """
    writable_folder(config)
    config = runnable(config)
    return plan_prepared(config, begun_now(config), begun_now)


def check_input(config: AnyRun) -> tuple[str, ...]:
    """Read and check all input, and start nothing: sentences about it and the memory expected. Raises UserError."""
    config = runnable(config)
    prepared = begun_now(config)
    expected = expected_memory(config, prepared.sizes().learnt)
    lines = memory_lines(resource_needs(config), expected, hosts=())
    return (*prepared.notes, *(f"memory: {line}" for line in lines))


def writable_folder(config: Run) -> Path:
    """Where a run goes. Raises UserError when that cannot be written."""
    folder = run_folder(config)
    check_writable(folder)
    return folder
