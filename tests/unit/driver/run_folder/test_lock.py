"""A run's folder has one driver; another is refused and touches nothing, and a dead one is in nobody's way."""

import errno
import fcntl
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import ray

from plumbob.configs.resolved_copy import write_resolved
from plumbob.configs.runs import SftRun
from plumbob.configs.settings.data import DemonstrationDataSettings
from plumbob.configs.settings.models import PolicySettings
from plumbob.configs.settings.workers import StorageSettings
from plumbob.core.errors import UserError
from plumbob.driver.api import resume, run
from plumbob.driver.run_folder.lock import LOCK_FILE, locked_folder
from tests.support.folder_names import names
from tests.support.host_requirements import cannot
from tests.support.recording_listener import Watching

HOLDER = """
import sys
from pathlib import Path
from plumbob.driver.run_folder.lock import locked_folder
with locked_folder(Path(sys.argv[1]), print) as is_ours:
    print(is_ours, flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_driver(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that has the run's folder."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        yield holder
    finally:
        holder.kill()
        holder.communicate(timeout=60)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def asked(tmp_path: Path) -> SftRun:
    """A run whose input is not there: whoever gets as far as reading it is told that."""
    missing = DemonstrationDataSettings(demonstrations=str(tmp_path / "missing.jsonl"))
    return SftRun(
        name="mine",
        data=missing,
        policy=PolicySettings(model="/missing"),
        storage=StorageSettings(path=str(tmp_path / "runs")),
    )


def test_a_second_driver_is_refused_and_removes_nothing(
    tmp_path: Path, asked: SftRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    folder = tmp_path / "runs" / "mine"
    with another_driver(folder) as holder:
        # As the first one is when it has just begun: nothing is computed yet.
        (folder / "logs").mkdir()
        (folder / "logs" / "learner-0.log").write_text("loading")
        said = rf"^{folder}: a driver is at work on this run: process {holder.pid} on \S+ since \S+ \S+; look at it"
        before = contents(folder)
        with pytest.raises(UserError, match=said):
            run(asked, Watching())
        write_resolved(asked, folder)
        with pytest.raises(UserError, match=re.escape(f"plumbob status {folder}")):
            resume(folder, Watching())
        assert contents(folder) == before | {str(folder / "resolved.json"): (folder / "resolved.json").read_bytes()}
        holder.send_signal(signal.SIGKILL)
        holder.wait(60)
        # What it leaves is in nobody's way.
        assert LOCK_FILE in names(folder)
        with pytest.raises(UserError, match=r"policy\.model=/missing: no such folder"):
            resume(folder, Watching())
    assert names(folder) == ["logs", "resolved.json"]


def test_a_refused_run_leaves_its_name_free(tmp_path: Path, asked: SftRun) -> None:
    with pytest.raises(UserError, match=r"policy\.model=/missing: no such folder"):
        run(asked, Watching())
    assert names(tmp_path) == []


@pytest.mark.parametrize("first", [0, 1])
def test_the_last_of_two_runs_that_leave_nothing_removes_their_storage(tmp_path: Path, first: int) -> None:
    storage = tmp_path / "runs"
    two = [ExitStack(), ExitStack()]
    for stack, name in zip(two, ("one", "two"), strict=True):
        stack.enter_context(locked_folder(storage / name, pytest.fail))
    two[first].close()
    assert len(names(storage)) == 1
    two[1 - first].close()
    assert names(tmp_path) == []
    storage.mkdir()  # A user's own stays.
    with locked_folder(storage / "one", pytest.fail):
        pass
    assert names(tmp_path) == ["runs"]


def test_a_lock_that_its_owner_took_away_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner leaves between a second one's opening of the file and its locking of it."""
    flock, path = fcntl.flock, tmp_path / LOCK_FILE

    def owner_leaves_first(lock: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        flock(lock, operation)

    monkeypatch.setattr(fcntl, "flock", owner_leaves_first)
    with locked_folder(tmp_path, pytest.fail) as is_ours:
        assert is_ours and path.read_text().startswith(f"process {os.getpid()} on ")
        with pytest.raises(UserError, match="a driver is at work"), locked_folder(tmp_path, pytest.fail):
            pass
    assert names(tmp_path) == []


def test_an_owner_that_leaves_while_it_is_asked_who_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock, path = fcntl.flock, tmp_path / LOCK_FILE

    def refused_and_gone(lock: int, operation: int) -> None:
        try:
            flock(lock, operation)
        finally:
            path.unlink()

    with locked_folder(tmp_path, pytest.fail):
        monkeypatch.setattr(fcntl, "flock", refused_and_gone)
        said = rf"a driver is at work on this run: process {os.getpid()} on"
        with pytest.raises(UserError, match=said), locked_folder(tmp_path, pytest.fail):
            pass


def as_nobody(act: Callable[[], object], said: Path) -> None:
    """In a process of its own, as a user who owns nothing: what it is refused with."""
    os.setuid(65534)
    with pytest.raises(UserError) as refused:
        act()
    said.write_text(str(refused.value))


@pytest.mark.parametrize("is_shared", [True, False])
def test_another_users_folder_is_refused_with_what_to_do(asked: SftRun, is_shared: bool) -> None:
    """One that may only be read, and one that may be written but has a lock file that may not be."""
    if os.geteuid() != 0:
        cannot("acting as another user needs root")
    with tempfile.TemporaryDirectory() as outer:
        folder, said = Path(outer) / "mine", Path(outer) / "said"
        write_resolved(asked, folder)
        said.touch()
        for path, mode in ((Path(outer), 0o755), (folder, 0o777 if is_shared else 0o755), (said, 0o666)):
            path.chmod(mode)
        if is_shared:
            (folder / LOCK_FILE).write_text("process 7 on elsewhere")
            (folder / LOCK_FILE).chmod(0o644)
        before = contents(folder)
        act = lambda: resume(folder, Watching())  # noqa: E731
        process = multiprocessing.get_context("fork").Process(target=as_nobody, args=(act, said))
        process.start()
        process.join(60)
        assert process.exitcode == 0
        assert contents(folder) == before
        begins, ends = (
            (f"{folder / LOCK_FILE}: Permission denied: it is another user's; ", " delete the file")
            if is_shared
            else (f"{folder}: this folder may not be written: ", " or resume a copy of it that you may write")
        )
        assert said.read_text().startswith(begins) and said.read_text().endswith(ends)


def test_a_file_system_without_locks_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    said: list[str] = []
    with locked_folder(tmp_path, said.append) as is_ours:
        assert not is_ours
    assert names(tmp_path) == []
    assert said == [f"{tmp_path}: this file system keeps no locks, so that a second driver of the run is not noticed"]
