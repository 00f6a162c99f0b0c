"""Where a private Ray cluster keeps its files, what is left when it does not start, and how urgent its workers are."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ray._private import services
from ray._private.services import ConsolePopen

from plumbob.cluster import private_ray
from plumbob.cluster.private_ray import BELOW, RayProcess, remove_folders, starting, temporary_folder
from plumbob.core.errors import RunFailed, UserError
from plumbob.core.process_ends.stop_signals import SIGNALS
from tests.support.folder_names import names

LONG = "/tmp/" + 90 * "a"


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of the session's whose path is short enough."""
    short = Path(f"/tmp/t{os.getpid()}")
    short.mkdir()
    monkeypatch.setenv("TMPDIR", str(short))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    yield short  # type: ignore[misc]
    short.rmdir()


def test_the_longest_path_that_ray_makes_below_it_is_what_the_system_takes(short: Path) -> None:
    # 107 bytes, less "/ray-" + 8 random, "/session_" + date, time, microseconds and process, "/sockets/plasma_store".
    assert len(BELOW) == 13 + len("/session_2026-11-29_10-06-45_990360_4194304") + 21 == 77
    folder = temporary_folder()
    assert folder.parent == short and len(f"{folder}") == len(f"{short}") + 13
    folder.rmdir()


def test_a_long_tmpdir_is_not_used_and_a_long_ray_tmpdir_is_refused(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", LONG)
    folder = temporary_folder()
    assert folder.parent == Path("/tmp")
    folder.rmdir()
    monkeypatch.setenv("RAY_TMPDIR", LONG)
    with pytest.raises(UserError, match=rf"^RAY_TMPDIR={LONG}: .* 107 bytes .* at most 30 bytes, such as /tmp$"):
        temporary_folder()
    monkeypatch.setenv("RAY_TMPDIR", "/proc")
    with pytest.raises(
        UserError, match=r"^/proc: a private Ray cluster cannot make its temporary folder there: .* RAY"
    ):
        temporary_folder()


def test_one_that_does_not_start_is_one_message_and_ends_what_it_started(short: Path) -> None:
    asked = "The current node timed out during startup. This could happen because some of the raylet failed"
    with pytest.raises(RunFailed) as failed, starting():
        process = services.ConsolePopen([sys.executable, "-c", "import time; time.sleep(60)"], preexec_fn=lambda: None)
        raise Exception(asked + "\nand more")  # As Ray does.
    (folder,) = short.iterdir()
    said = str(failed.value)
    assert said.startswith(f"a private Ray cluster did not start on this machine: {asked}; its logs are in {folder}. ")
    assert "\n" not in said and "fewer cluster.num_cpus" in said
    assert process.returncode == -signal.SIGKILL
    assert services.ConsolePopen is ConsolePopen
    folder.rmdir()


def test_one_that_has_ended_leaves_nothing(short: Path) -> None:
    with starting() as folder:
        (folder / "session").mkdir()
    assert names(short) == [folder.name]
    remove_folders()
    assert names(short) == []
    with pytest.raises(UserError), starting():
        raise UserError("this process is on the Ray cluster at 127.0.0.1:6379 already")
    assert names(short) == []


def test_its_processes_are_reached_by_no_signal_to_the_group_and_hold_none(short: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        shown = "import os, signal; print(os.getpgid(0) == os.getpid(), signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
        process = RayProcess([sys.executable, "-c", shown], stdout=-1, text=True, preexec_fn=lambda: None)
        assert process.communicate(timeout=30.0)[0] == "True set()\n"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        private_ray.end_processes()


PROGRAM = """
import os

import psutil
import ray

from plumbob.cluster.connection import started_or_joined
from plumbob.configs.settings.workers import ClusterSettings

with started_or_joined(ClusterSettings(num_cpus=1)):
    programs = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    print(*(name for name in ("raylet", "monitor.py", "dashboard.py") if any(name in program for program in programs)))
    print(os.nice(0), ray.get(ray.remote(lambda: os.nice(0)).remote(), timeout=120))
"""


@pytest.mark.cluster
def test_its_workers_are_as_urgent_as_the_driver_and_no_program_runs_that_nobody_asks() -> None:
    """Ray's own default is 15 below it: a run would get what other programs leave."""
    env = {name: value for name, value in os.environ.items() if name != "RAY_worker_niceness"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    programs, niceness = done.stdout.splitlines()[-2:]
    driver, worker = niceness.split()
    assert (programs, driver) == ("raylet", worker)
