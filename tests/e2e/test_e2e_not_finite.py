"""Numbers that are not finite: status 1 and why, before anything is learnt from them."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from console.cli import main
from tests.small_run import WORKERS, Left, Stages, settings


def failed(stage: Stages, capfd: pytest.CaptureFixture[str], kind: str, *groups: Mapping[str, object]) -> str:
    """What a run says in the end that has to fail."""
    stage.close()
    capfd.readouterr()
    status = main(["run", kind, *settings(stage.cluster, WORKERS, *groups)])
    said = capfd.readouterr().err
    assert status == 1, said
    assert "Traceback" not in said
    return said[said.index("plumbob: the run failed: ") :]


def test_a_reward_that_is_not_finite_ends_before_a_step(
    stage: Stages,
    ppo_settings: dict[str, object],
    reward_model: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(reward_model, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.weight"] = torch.full_like(tensors["classifier.weight"], torch.nan)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    named = {"name": "nan-reward", "reward.model": folder}
    said = failed(stage, capfd, "ppo", ppo_settings, named)
    assert "score is not finite for 8 answers" in said
    assert "row 0, 1, 2, 3, 4, 5, 6, 7 of the batch of 8" in said
    assert "no checkpoint had been made" in said
    left = Left(stage.storage / "nan-reward")
    assert left.metrics == []
    assert not (left.folder / "policy").exists()
    assert not (left.folder / "checkpoints").exists()


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(
    stage: Stages, sft_settings: dict[str, object], capfd: pytest.CaptureFixture[str]
) -> None:
    # The first step is taken with finite gradients and leaves weights near 1e30, which the next forward cannot bear.
    huge = {"name": "nan-loss", "sft.learning_rate": "1.0e+30", "sft.save_every": 1}
    said = failed(stage, capfd, "sft", sft_settings, huge)
    assert "loss is nan" in said
    assert "no optimizer step was taken with it" in said
    assert "of the training split" in said
    left = Left(stage.storage / "nan-loss")
    assert [line["step"] for line in left.metrics] == [1]
    assert f"the last good checkpoint is {left.folder}/checkpoints/step-000001" in said
    assert "resuming would do the same again" in said
    assert left.last_checkpoint.name == "step-000001"
    assert not (left.folder / "policy").exists()
