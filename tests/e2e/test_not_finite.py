"""Numbers that are not finite end a run and say why, before anything is learnt from them."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import SftRun
from plumbob.core.errors import RunFailed
from plumbob.driver.run_folder.folder import DRIVER_LOG, EVENTS_FILE
from tests.support.folder_names import names
from tests.support.small_run import WORKERS, Left, Stages, settings


def test_a_reward_that_is_not_finite_ends_before_a_step(
    stage: Stages,
    ppo_settings: dict[str, object],
    reward_model: str,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(reward_model, folder)
    tensors = load_file(folder / "model.safetensors")
    # Weights that are NaN are refused before anything starts; these are finite, and what they amount to is not.
    tensors["bert.pooler.dense.weight"].zero_()
    tensors["bert.pooler.dense.bias"].fill_(50.0)  # tanh of it is 1.
    tensors["classifier.weight"].fill_(3e38)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(RunFailed) as error:
        stage("nan-reward", "ppo", ppo_settings, {"reward.model": folder})
    said = str(error.value)
    assert "score is not finite for 8 responses" in said
    assert "row 0, 1, 2, 3, 4, 5, 6, 7 of the batch of 8" in said
    assert "no checkpoint had been made, and its name is free" in said
    # Nothing but what tells why.
    assert names(stage.storage / "nan-reward") == [DRIVER_LOG, EVENTS_FILE]


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(stage: Stages, sft_settings: dict[str, object]) -> None:
    # The first step is taken with finite gradients and leaves weights near 1e30, which the next forward cannot bear.
    # As a setting such a rate is refused, so it is put past the check.
    run = load_run("sft", settings(stage.cluster, WORKERS, sft_settings, {"sft.save_every": 1}))
    assert isinstance(run, SftRun)
    with pytest.raises(RunFailed) as error:
        stage.run("nan-loss", run.model_copy(update={"sft": run.sft.model_copy(update={"learning_rate": 1e30})}))
    said = str(error.value)
    assert "loss is nan" in said
    assert "no optimizer step was taken with it" in said
    assert "of the training split" in said
    left = Left(stage.storage / "nan-loss")
    assert [line["step"] for line in left.metrics] == [1]
    assert f"the last good checkpoint is {left.folder}/checkpoints/step-000001" in said
    assert "resuming would do the same again" in said
    assert left.last_checkpoint.name == "step-000001"
    assert not (left.folder / "policy").exists()
