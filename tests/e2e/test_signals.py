"""SIGTERM, SIGHUP and SIGKILL, sent for real to the whole process group of a run on a private Ray cluster."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plumbob.cluster.calls import wait_until
from plumbob.console.cli import main
from tests.support.folder_names import names
from tests.support.signalled_run import SignalledRun, pretrain_settings, start
from tests.support.small_run import Left, Stages

LEFT_S = 15.0
"""Within which nothing of a run is alive whose driver was killed."""


@pytest.fixture(autouse=True)
def unconnected(stage: Stages) -> None:
    """A command connects this process by itself."""
    stage.close()


@pytest.fixture
def begin(world: Path, tmp_path: Path) -> Iterator[Callable[..., SignalledRun]]:
    """Starts `plumbob run pretrain`; what is still alive at the end is killed."""
    begun: list[SignalledRun] = []

    def start_one(name: str, **environment: str) -> SignalledRun:
        begun.append(
            start(tmp_path / name, "run", "pretrain", *pretrain_settings(world, tmp_path, name), **environment)
        )
        return begun[-1]

    yield start_one
    for run in begun:
        run.kill()


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Short enough for the paths of Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_the_first_signal_saves_the_step_and_a_resumed_run_is_as_one_that_nothing_happened_to(
    begin: Callable[..., SignalledRun], world: Path, temporary: Path, tmp_path: Path, number: signal.Signals
) -> None:
    run = begin("signalled", TMPDIR=str(temporary))
    run.wait_for(lambda: run.num_steps() >= 3)
    run.signal_group(number)
    printed = run.end()
    assert run.driver.returncode == 75, printed
    last = printed.splitlines()[-2:]
    left = Left(run.folder)
    saved = left.last_checkpoint
    assert last == [
        f"plumbob: {number.name}: the run was asked to stop",
        f"plumbob: the last good checkpoint is {saved}; resume with: plumbob resume {run.folder}",
    ]
    assert "Traceback" not in printed and "Stack trace" not in printed
    # Nothing that was learnt is lost: saved is the last step that has a line, though save_every is 1000.
    assert 3 <= len(left.metrics) == int(saved.name.removeprefix("step-")) < 57
    assert run.left(LEFT_S) == [] and names(temporary) == []
    if number == signal.SIGTERM:
        assert main(["resume", str(run.folder)]) == 0
        assert main(["run", "pretrain", *pretrain_settings(world, tmp_path, "undisturbed")]) == 0
        undisturbed = Left(tmp_path / "undisturbed")
        assert left.untimed == undisturbed.untimed
        weights = [(each.folder / "policy/model.safetensors").read_bytes() for each in (left, undisturbed)]
        assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_boot_that_is_ended_leaves_nothing(
    begin: Callable[..., SignalledRun], temporary: Path, tmp_path: Path
) -> None:
    run = begin("booting", TMPDIR=str(temporary))
    run.wait_for(lambda: any(run.folder.glob("logs/learner-*.log")))
    run.signal_group(signal.SIGTERM)
    printed = run.end()
    assert run.driver.returncode == 75, printed
    said = "SIGTERM: the run was asked to stop", "nothing was computed, and its name is free"
    assert printed.endswith("".join(f"plumbob: {line}\n" for line in said))
    assert run.left(LEFT_S) == [] and names(tmp_path) == names(temporary) == []


@pytest.mark.slow
@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGKILL,)])
def test_the_second_signal_or_a_kill_ends_all_processes_in_a_bounded_time(
    begin: Callable[..., SignalledRun], temporary: Path, signals: tuple[signal.Signals, ...]
) -> None:
    run = begin("killed", TMPDIR=str(temporary))
    run.wait_for(lambda: run.num_steps() >= 1)
    learner = next(process for process in run.processes if "LearnerWorker" in process.name() + str(process.cmdline()))
    learner.suspend()  # Its step does not end.
    for number in signals:
        os.kill(run.driver.pid, number)
        time.sleep(1.2)
    run.driver.wait(10.0)
    assert run.driver.returncode == -signals[-1]
    learner.resume()
    assert len(run.processes) > 4
    assert run.left(LEFT_S) == [] and wait_until(lambda: names(temporary) == [], LEFT_S)
