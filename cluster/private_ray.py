"""A private Ray cluster on this machine: where its files are, how it starts and ends, out of reach of signals."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from ray._private import parameter, services, utils
from ray._private.services import ConsolePopen

from plumbob.core.errors import RunFailed, UserError, first_line
from plumbob.core.process_ends.after_death import AfterDeath
from plumbob.core.process_ends.stop_signals import SIGNALS

SOCKET_BYTES = 107
"""The longest path that the system takes for a socket."""

BELOW = f"/ray-12345678/session_2026-01-01_00-00-00_000000_{2**22}/sockets/plasma_store"
"""The longest path of a socket of Ray below the temporary folder."""


class RayProcess(ConsolePopen):
    """A process of Ray in a process group of its own, which holds no signals.

    A terminal that is closed, `timeout` and a shell signal the whole group of the driver: were Ray in it, nobody would
    be left to end the step with. The kernel ends these processes when the driver is dead, however it died, and
    `AfterDeath` what they have started in their groups: the raylet's agents would try for a minute to say so first.
    """

    def __init__(self, *arguments: Any, preexec_fn: Callable[[], None], **options: Any) -> None:
        def prepare() -> None:
            preexec_fn()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

        super().__init__(*arguments, preexec_fn=prepare, process_group=0, **options)
        started.append(self)


started: list[RayProcess] = []
"""Of the private Ray cluster of this process, or of one that did not start."""

folders: list[Path] = []
"""Of private Ray clusters that have not been removed."""

guards: list[AfterDeath] = []
"""Of private Ray clusters that run."""


def temporary_folder() -> Path:
    """Where a private Ray cluster has its sockets, its logs and what its memory does not hold; made anew.

    RAY_TMPDIR says below which folder, or TMPDIR where that is short enough for a socket's path, or else it is /tmp.

    Raises:
        UserError: RAY_TMPDIR is too long for a socket's path, or no folder can be made there.
    """
    asked, usual = os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR")
    room = SOCKET_BYTES - len(BELOW)
    if asked and len(os.fsencode(asked)) > room:
        raise UserError(
            f"RAY_TMPDIR={asked}: a private Ray cluster has sockets below it, whose paths would be longer than the "
            f"{SOCKET_BYTES} bytes that the system takes; set it to a folder of at most {room} bytes, such as /tmp"
        )
    parent = asked or (usual if usual and len(os.fsencode(usual)) <= room else "/tmp")
    try:
        return Path(tempfile.mkdtemp(prefix="ray-", dir=parent))
    except OSError as error:
        raise UserError(
            f"{parent}: a private Ray cluster cannot make its temporary folder there: {error.strerror}; set "
            f"RAY_TMPDIR to a folder that can be written"
        ) from error


@contextmanager
def starting() -> Iterator[Path]:
    """Ray is started inside, with the folder that comes as its temporary one.

    Raises:
        RunFailed: it does not start; what had been started is ended.
    """
    folder = temporary_folder()
    started.clear()
    services.ConsolePopen = RayProcess
    try:
        yield folder
    except UserError:
        remove(folder)
        raise
    except Exception as error:  # Ray says nothing of what it raises, and raises bare exceptions too.
        end_processes()
        raise RunFailed(
            f"a private Ray cluster did not start on this machine: {first_line(error)}; its logs are in {folder}. A "
            f"machine that is busy or out of memory or disk can be why: try again, with fewer cluster.num_cpus, or "
            f"start a Ray cluster with `ray start --head` and give the run cluster.address=auto"
        ) from error
    finally:
        services.ConsolePopen = ConsolePopen
    folders.append(folder)
    guards.append(AfterDeath([process.pid for process in started], folder))


@contextmanager
def loopback_as_given() -> Iterator[None]:
    """Ray takes 127.0.0.1 for what it says; by itself it puts this machine's address on its network in its place.

    A node whose address is that one binds its servers to it, and those of its workers; any other node binds them to
    all interfaces of its host.
    """
    resolve = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield
    finally:
        services.resolve_ip_for_localhost = resolve


@contextmanager
def with_workers_alone() -> Iterator[None]:
    """Ray starts no programs but those that start workers, and see to what these hold.

    By itself it starts three more: an autoscaler, which has no hosts to add, one that reads workers' logs to a driver,
    which ours does not ask for, and a server of statistics that are not sent, for whose start the driver waits.
    """
    parameters, start_server = parameter.RayParams, services.start_api_server
    parameter.RayParams = partial(parameters, no_monitor=True, include_log_monitor=False)
    services.start_api_server = lambda *arguments, **options: (None, None)
    try:
        yield
    finally:
        parameter.RayParams, services.start_api_server = parameters, start_server


@contextmanager
def without_handlers() -> Iterator[None]:
    """Ray, private or joined, sets no handler of SIGTERM in Python; its C++ sets one all the same, which aborts."""
    set_handler = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = set_handler


def end_processes() -> None:
    """Kill what was started with all in its groups, from the newest on."""
    while started:
        process = started.pop()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def remove_folders() -> None:
    """Called when Ray has ended: nothing else would ever remove what it leaves."""
    while guards:
        guards.pop().cancel()
    while folders:
        remove(folders.pop())


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
