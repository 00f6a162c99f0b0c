"""A driver killed between two steps, and `plumbob resume`: the same bytes and figures as without the death."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from console.cli import main
from models.adapters import WEIGHTS_FILE
from tests.small_run import WORKERS, Left, Stages, settings

BOUND_S = 240


@dataclass(frozen=True)
class Killed:
    """Two runs whose drivers were killed at the line of a step: PPO at the second of three, SFT the third of five."""

    ppo: Left
    sft: Left


@pytest.fixture(scope="module")
def killed(stage: Stages, ppo_settings: dict[str, object], sft_settings: dict[str, object], sft_lora: Left) -> Killed:
    def start(last_step: int, kind: str, *groups: Mapping[str, object]) -> subprocess.Popen[bytes]:
        overrides = settings(stage.cluster, WORKERS, {"name": f"{kind}-killed"}, *groups)
        command = [sys.executable, "-m", "tests.die_at_step", str(last_step), kind, *overrides]
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
    states = [(left.last_checkpoint / "learner.safetensors").read_bytes() for left in (resumed, undisturbed)]
    assert states[0] == states[1]


def test_a_killed_run_has_no_result_and_a_whole_checkpoint(killed: Killed) -> None:
    assert [line["step"] for line in killed.ppo.metrics] == [1, 2]
    # Killed with the line written and the checkpoint not: the second step is made again, and its line with it.
    assert killed.ppo.last_checkpoint.name == "step-000001"
    # sft.save_every=2: the third step is lost, and will be made again.
    assert [line["step"] for line in killed.sft.metrics] == [1, 2, 3]
    assert killed.sft.last_checkpoint.name == "step-000002"
    for left in (killed.ppo, killed.sft):
        assert not (left.folder / "policy").exists()
        assert not (left.folder / "summary.json").exists()


def test_a_resumed_sft_ends_with_the_same_bytes(stage: Stages, killed: Killed, sft_lora: Left) -> None:
    stage.close()
    assert main(["resume", str(killed.sft.folder)]) == 0
    same_result(killed.sft, sft_lora)
    assert killed.sft.summary["stages"]["sft"]["heldout_loss"] == sft_lora.summary["stages"]["sft"]["heldout_loss"]


def test_a_resumed_ppo_ends_with_the_same_bytes(stage: Stages, killed: Killed, ppo_from_adapter: Left) -> None:
    stage.close()
    coefficients = [line["metrics"]["kl_coefficient"] for line in ppo_from_adapter.metrics]
    assert len(set(coefficients)) == 3
    assert main(["resume", str(killed.ppo.folder)]) == 0
    same_result(killed.ppo, ppo_from_adapter)
    for (step, resumed), (other, undisturbed) in zip(killed.ppo.journal, ppo_from_adapter.journal, strict=True):
        assert step == other
        assert resumed.token_ids.tolist() == undisturbed.token_ids.tolist()
        assert resumed.score == undisturbed.score
