"""A driver killed between two steps, and `plumbob resume`: the same bytes and figures as without the death.

Also with a damaged checkpoint, a disk that runs full, and another number of workers than the run began with.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from plumbob.console.cli import main
from plumbob.driver.run_folder.folder import DRIVER_LOG, EVENTS_FILE
from plumbob.models.adapter import WEIGHTS_FILE
from plumbob.trainers.learner.checkpoint_shards import file_name
from plumbob.trainers.metrics.json_lines import read_json_lines
from tests.support.folder_names import names
from tests.support.full_disk import fill, small_disk
from tests.support.recording_listener import Watching
from tests.support.small_run import WORKERS, Left, Stages, settings

STATE_FILE = file_name(0)

BOUND_S = 240


@dataclass(frozen=True)
class Killed:
    """Two runs whose drivers were killed at the line of a step: PPO at the second of three, SFT the third of five."""

    online: Left
    sft: Left


@pytest.fixture(scope="module")
def killed(stage: Stages, ppo_settings: dict[str, object], sft_settings: dict[str, object], sft_lora: Left) -> Killed:
    def start(last_step: int, kind: str, *groups: Mapping[str, object]) -> subprocess.Popen[bytes]:
        overrides = settings(stage.cluster, WORKERS, {"name": f"{kind}-killed"}, *groups)
        command = [sys.executable, "-m", "tests.support.die_at_step", str(last_step), kind, *overrides]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    # Both at once: most of a driver's start is waiting.
    drivers = [start(2, "ppo", ppo_settings), start(3, "sft", sft_settings)]
    try:
        for driver in drivers:
            printed = driver.communicate(timeout=BOUND_S)[0].decode()
            assert driver.returncode == -signal.SIGKILL, printed
    finally:
        for driver in drivers:
            driver.kill()
            driver.wait()
    return Killed(Left(stage.storage / "ppo-killed"), Left(stage.storage / "sft-killed"))


def same_result(resumed: Left, undisturbed: Left) -> None:
    weights = [(Path(left.policy) / WEIGHTS_FILE).read_bytes() for left in (resumed, undisturbed)]
    assert weights[0] == weights[1]
    assert resumed.untimed == undisturbed.untimed
    states = [(left.last_checkpoint / STATE_FILE).read_bytes() for left in (resumed, undisturbed)]
    assert states[0] == states[1]


def test_a_killed_run_has_no_result_and_a_whole_checkpoint(killed: Killed) -> None:
    assert [line["step"] for line in killed.online.metrics] == [1, 2]
    # Killed with the line written and the checkpoint not: the second step is made again, and its line with it.
    assert killed.online.last_checkpoint.name == "step-000001"
    # sft.save_every=2: the third step is lost, and will be made again.
    assert [line["step"] for line in killed.sft.metrics] == [1, 2, 3]
    assert killed.sft.last_checkpoint.name == "step-000002"
    for left in (killed.online, killed.sft):
        assert not (left.folder / "policy").exists()
        assert not (left.folder / "summary.json").exists()


def again(killed: Left, name: str, storage: Path | None = None) -> Left:
    """A copy of a killed run's folder, to resume in."""
    return Left(shutil.copytree(killed.folder, (storage or killed.folder.parent) / name))


def test_a_resumed_sft_ends_with_the_same_bytes(stage: Stages, killed: Killed, sft_lora: Left) -> None:
    same_sft(stage.resume(again(killed.sft, "sft-resumed")), sft_lora)


def same_sft(resumed: Left, undisturbed: Left) -> None:
    same_result(resumed, undisturbed)
    losses = [left.summary["stages"]["sft"]["heldout_loss"] for left in (resumed, undisturbed)]
    assert losses[0] == losses[1]


def test_a_resumed_ppo_ends_with_the_same_bytes(stage: Stages, killed: Killed, ppo_from_adapter: Left) -> None:
    coefficients = [line["metrics"]["kl_coefficient"] for line in ppo_from_adapter.metrics]
    assert len(set(coefficients)) == 3
    left = stage.resume(again(killed.online, "ppo-resumed"))
    same_online(left, ppo_from_adapter)
    keeps_a_record_of_both_drivers(left)


def keeps_a_record_of_both_drivers(left: Left) -> None:
    """Killed at the line of the second step of three, then resumed from the checkpoint of the first."""
    events = read_json_lines(left.folder / EVENTS_FILE)
    told = [(event["event"], event.get("version", event.get("step"))) for event in events if event["event"] != "joined"]
    assert told == [
        *[("started", None), ("stage_began", None), ("published", 0), ("step", 1), ("saved", 1), ("published", 1)],
        *[("resumed", None), ("stage_began", None), ("published", 1), ("step", 2), ("saved", 2), ("published", 2)],
        *[("step", 3), ("saved", 3), ("published", 3), ("stage_ended", None), ("finished", None)],
    ]
    # The killed driver started a worker of each role; the one that resumed had those of the session.
    resumed = [event["event"] for event in events].index("resumed")
    workers = [event["worker"].partition("-")[0] for event in events[:resumed] if event["event"] == "joined"]
    assert sorted(workers) == ["learner", "rollout", "scorer"]
    drivers = [{event["by"]["pid"] for event in some} for some in (events[:resumed], events[resumed:])]
    assert len(drivers[0]) == 1 and drivers[1] == {os.getpid()} != drivers[0]
    assert {event["by"]["host"] for event in events} == {socket.gethostname()}
    times = [datetime.fromisoformat(event["time"]) for event in events]
    assert times == sorted(times) and all(time.tzinfo == UTC for time in times)
    lines = (left.folder / DRIVER_LOG).read_text().splitlines()
    steps = [line.split()[1:6] for line in lines if " ppo: step " in line]
    assert steps == [["ppo:", "step", number, "of", "3:"] for number in ("1", "2", "2", "3")]
    assert all(datetime.fromisoformat(line.split()[0]).tzinfo == UTC for line in lines)


def same_online(resumed: Left, undisturbed: Left) -> None:
    same_result(resumed, undisturbed)
    for (step, ours), (other, theirs) in zip(resumed.journal, undisturbed.journal, strict=True):
        assert step == other
        assert ours.token_ids.tolist() == theirs.token_ids.tolist()
        assert ours.score == theirs.score


def test_a_damaged_checkpoint_and_another_number_of_rollout_workers_change_no_byte(
    stage: Stages, killed: Killed, ppo_from_adapter: Left
) -> None:
    left = again(killed.online, "ppo-two-samplers")
    damaged = shutil.copytree(
        ppo_from_adapter.folder / "checkpoints/step-000002", left.folder / "checkpoints/step-000002"
    )
    weights = bytearray((damaged / STATE_FILE).read_bytes())
    weights[-1] ^= 1  # One bit of the last tensor.
    (damaged / STATE_FILE).write_bytes(weights)
    watching = Watching()
    stage.resume(left, "rollout.num_workers=2", listener=watching)
    why = f"{damaged} is damaged: {STATE_FILE} is not what was written, by its blake2b; going back to step-000001"
    assert any(why in message for _, message in watching.notes)
    same_online(left, ppo_from_adapter)
    resolved = json.loads((left.folder / "resolved.json").read_text())
    assert [entry["changed"] for entry in resolved["resumed"]] == [{"rollout.num_workers": [1, 2]}]


def test_another_number_of_learners_and_zero_stage_go_on_to_rounding(
    stage: Stages, killed: Killed, ppo_from_adapter: Left
) -> None:
    """The first step that is made again, on which rests what later steps sample."""
    left = again(killed.online, "ppo-two-learners")
    stage.resume(left, "learner.num_workers=2", "learner.zero_stage=3")
    assert [line["step"] for line in left.untimed] == [1, 2, 3]
    ours, theirs = left.untimed[1], ppo_from_adapter.untimed[1]
    assert ours["metrics"] == pytest.approx(theirs["metrics"], rel=1e-3, abs=1e-4)
    for (step, resumed), (_, undisturbed) in zip(left.journal, ppo_from_adapter.journal, strict=True):
        if step == 2:
            assert resumed.token_ids.tolist() == undisturbed.token_ids.tolist()


def test_a_resume_that_would_compute_something_else_is_refused(
    killed: Killed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume", str(killed.online.folder), "online.num_steps=9"]) == 2
    assert capsys.readouterr().err.startswith("plumbob: online.num_steps: cannot change when a run resumes")


def test_a_disk_that_runs_full_costs_nothing_once_there_is_room(
    stage: Stages, killed: Killed, sft_lora: Left, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command itself, which connects by itself."""
    stage.close()
    with small_disk("16m") as disk:
        left = again(killed.sft, "sft", disk)
        with fill(disk).open("r+b") as filling:  # Less stays free than the checkpoint of step 4 takes.
            filling.truncate(filling.seek(0, os.SEEK_END) - 65_536)
        assert main(["resume", str(left.folder)]) == 1
        printed = capsys.readouterr().err
        assert printed.startswith("plumbob: the run failed: ") and "Traceback" not in printed
        assert "No space left on device; 0." in printed
        assert f"the last good checkpoint is {left.folder / 'checkpoints/step-000002'}; when" in printed
        assert names(left.last_checkpoint.parent) == ["latest", "step-000002"]
        (disk / "filling").unlink()
        assert main(["resume", str(left.folder)]) == 0
        same_sft(left, sft_lora)
