"""Numbers that are not finite end a run and say why, before anything is learnt from them."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from plumbob.core.errors import RunFailed
from tests.support.small_run import Left, Stages


def failed(stage: Stages, name: str, kind: str, *groups: Mapping[str, object]) -> str:
    """What a run says in the end that has to fail."""
    with pytest.raises(RunFailed) as error:
        stage(name, kind, *groups)
    return str(error.value)


def test_a_reward_that_is_not_finite_ends_before_a_step(
    stage: Stages,
    ppo_settings: dict[str, object],
    reward_model: str,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(reward_model, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.weight"] = torch.full_like(tensors["classifier.weight"], torch.nan)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    said = failed(stage, "nan-reward", "ppo", ppo_settings, {"reward.model": folder})
    assert "score is not finite for 8 responses" in said
    assert "row 0, 1, 2, 3, 4, 5, 6, 7 of the batch of 8" in said
    assert "no checkpoint had been made" in said
    left = Left(stage.storage / "nan-reward")
    assert left.metrics == []
    assert not (left.folder / "policy").exists()
    assert not (left.folder / "checkpoints").exists()


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(stage: Stages, sft_settings: dict[str, object]) -> None:
    # The first step is taken with finite gradients and leaves weights near 1e30, which the next forward cannot bear.
    huge = {"sft.learning_rate": "1.0e+30", "sft.save_every": 1}
    said = failed(stage, "nan-loss", "sft", sft_settings, huge)
    assert "loss is nan" in said
    assert "no optimizer step was taken with it" in said
    assert "of the training split" in said
    left = Left(stage.storage / "nan-loss")
    assert [line["step"] for line in left.metrics] == [1]
    assert f"the last good checkpoint is {left.folder}/checkpoints/step-000001" in said
    assert "resuming would do the same again" in said
    assert left.last_checkpoint.name == "step-000001"
    assert not (left.folder / "policy").exists()
