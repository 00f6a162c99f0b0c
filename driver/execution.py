"""One run over a session: its folder locked, its input compared with what it began with, its stages, its summary."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from plumbob.cluster.admission import check_local, joined_notes
from plumbob.cluster.resources import resource_needs
from plumbob.cluster.session import Session
from plumbob.configs.paths import named_inputs
from plumbob.configs.resolved_copy import read_begun, write_resolved
from plumbob.configs.runs import AnyRun
from plumbob.configs.settings.workers import ClusterSettings
from plumbob.core.atomic_files import flush
from plumbob.core.disk_errors import replace_text
from plumbob.core.errors import UserError
from plumbob.core.process_ends.stop_signals import stop_signals
from plumbob.core.programs.function_source import changed_sources, source_digests
from plumbob.data.texts.bounded_templates import template_time
from plumbob.driver.callbacks.run_callbacks import CallbackListener, RunCallback, RunEnding
from plumbob.driver.cpu_threads import with_threads
from plumbob.driver.energy.energy_meter import opened_meter
from plumbob.driver.failure_advice import with_failure_advice
from plumbob.driver.learner_notes import learner_notes
from plumbob.driver.peak_memory import PeakMemory
from plumbob.driver.planning.expected_memory import expected_memory
from plumbob.driver.prepared_run import date_notes, prepare_run, runnable, stage_of
from plumbob.driver.run_control import controlled_run
from plumbob.driver.run_folder.connection_file import ConnectionFile
from plumbob.driver.run_folder.event_log import EventLog
from plumbob.driver.run_folder.folder import LOGS_FOLDER, SUMMARY_FILE, removed_if_nothing_computed
from plumbob.driver.run_folder.inputs import check_models, check_rows, check_sources, new_digests, write_digests
from plumbob.driver.run_folder.lock import locked_folder
from plumbob.driver.stages.stage import StageContext
from plumbob.driver.stewardship.run_data_report import run_data_report, write_data_report
from plumbob.trainers.metrics.sinks.trackers import opened_trackers
from plumbob.trainers.metrics.step_record import Listener


@contextmanager
def locked_run(folder: Path, listener: Listener) -> Iterator[None]:
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
def opened_session(
    session: Session | None, cluster: ClusterSettings, folder: Path, listener: Listener
) -> Iterator[Session]:
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


def execute(
    config: AnyRun,
    folder: Path,
    listener: Listener,
    session: Session | None,
    callbacks: Sequence[RunCallback],
    min_wait_s: float = 0.0,
) -> dict[str, Any]:
    """Run the stages, or what is left of them: the content of `summary.json`.

    Args:
        folder: of the run, which is locked.
        callbacks: told of each step, each checkpoint and the end, whatever it is.
        min_wait_s: how long capacity is waited for at least.
    """
    called = CallbackListener(listener, callbacks)
    try:
        summary = _run_stages(config, folder, called, session, min_wait_s)
    except BaseException as error:
        called.ended(RunEnding(folder, None, error))
        raise
    called.ended(RunEnding(folder, summary, None))
    return summary


def _run_stages(
    config: AnyRun, folder: Path, listener: CallbackListener, session: Session | None, min_wait_s: float
) -> dict[str, Any]:
    began = time.monotonic()
    config = runnable(config)
    named, began_as = named_inputs(config), read_begun(folder)
    sources = source_digests(named.functions)
    changed = tuple(changed_sources(sources, began_as.sources))
    check_rows(named, folder)
    check_sources(named, changed)
    with template_time(began_as.time) as clock:
        run_stages = prepare_run(with_threads(config))
    check_models(named, folder)
    digests, data_report = new_digests(named, folder), run_data_report(config, folder)
    stage = stage_of(config, folder)
    needs, expected = resource_needs(config), expected_memory(config)
    check_local(config.cluster, needs, expected, is_running=session is not None)
    events = EventLog(folder)
    wait_s = config.cluster.wait_s if session is not None else max(config.cluster.wait_s, min_wait_s)
    cluster = config.cluster.model_copy(update={"wait_s": wait_s})
    with (
        events.of_end(),
        opened_session(session, cluster, folder, listener) as opened,
        controlled_run(opened, config.name, needs, folder, listener, listener.saved) as control,
        PeakMemory() as memory,
        opened_meter(config.energy, partial(listener.notify, "energy")) as energy,
        template_time(began_as.time),
    ):
        for note in joined_notes(config.cluster, needs, expected):
            listener.notify("cluster", note)
        for note in date_notes(clock) + learner_notes(config):
            listener.notify(stage, note)
        write_resolved(config, folder, began_as.time, sources)
        write_digests(digests, folder)
        write_data_report(data_report, folder)
        (folder / SUMMARY_FILE).unlink(missing_ok=True)  # A run that has one is finished, and this one is not.
        flush(folder)
        with (
            ConnectionFile(folder, config.name, opened.cluster),
            opened_trackers(config, folder.resolve(), lambda message: listener.notify("sinks", message)) as trackers,
        ):
            context = StageContext(opened, control, folder.resolve(), control.listener, memory, stage, trackers, energy)
            stages = run_stages(context).as_dict()
    summary: dict[str, Any] = {
        "name": config.name,
        "kind": config.stage,
        "seed": config.seed,
        "seconds_total": time.monotonic() - began,
        "stages": stages,
    }
    replace_text(folder / SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
    events.record("finished")
    return summary
