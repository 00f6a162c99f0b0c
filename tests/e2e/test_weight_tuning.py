"""Weights of the model itself through whole runs: PPO sampled with vLLM, and a resumed run of chosen weights."""

import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from plumbob.models.files.weight_files import WHOLE
from plumbob.models.loading import load_causal_lm
from plumbob.trainers.learner.checkpoint_shards import file_name
from tests.support.opened_models import opened_policy
from tests.support.plain_transformers import largest_gap, load_plain
from tests.support.small_run import TEMPERATURE, Left, Stages, tensors_of

PREFIX = "param.causal_lm."


def trained(left: Left) -> dict[str, torch.Tensor]:
    """The policy's weights in the last checkpoint, by transformers' names."""
    found = tensors_of(left.last_checkpoint)
    return {name.removeprefix(PREFIX): tensor for name, tensor in found.items() if name.startswith(PREFIX)}


def check_exported(left: Left, began: str, num_trained: int) -> None:
    """The folder is a full model, whose chosen weights are the checkpoint's and whose others are as they began."""
    model, before = AutoModelForCausalLM.from_pretrained(left.policy), load_causal_lm(opened_policy(began))
    weights = trained(left)
    assert len(weights) == num_trained
    for name, tensor in before.named_parameters():
        found = model.get_parameter(name)
        assert torch.equal(found, weights.get(name, tensor)), name
        assert torch.equal(found, tensor) != (name in weights), name


def test_ppo_trains_all_weights_and_samples_with_vllm(
    stage: Stages, ppo_settings: dict[str, object], sft_full: str
) -> None:
    given = {key: value for key, value in ppo_settings.items() if key != "rollout.engine.kind"}
    full = {"policy.model": sft_full, "policy.tuning.kind": "full", "online.num_steps": 2}
    left = stage("full", "ppo", given, full)
    lines = [line["metrics"] for line in left.metrics]
    assert lines[0]["kl"] == 0.0 and lines[1]["kl"] != 0.0
    # Each version reached the sampler, and each was sampled from.
    assert all(line["sampler_gap_max"] < 1e-4 for line in lines)
    assert all(line["policy_grad_norm"] > 0 and line["value_grad_norm"] > 0 for line in lines)
    assert {(step, int(version)) for step, row in left.journal for version in row.versions} == {(1, 0), (2, 1)}
    # The reference is the model that the run began with.
    rows = [row for _, row in left.journal]
    assert largest_gap(load_plain(sft_full), rows, "ref_logprobs", TEMPERATURE) < 1e-4
    # Embeddings are shared: 2 layers of 7 matrices and 2 norms, the embeddings and a norm.
    check_exported(left, sft_full, 20)


def test_a_resumed_run_of_chosen_weights_ends_with_the_same_bytes(
    stage: Stages, ppo_settings: dict[str, object], sft_full: str
) -> None:
    some = {"policy.model": sft_full, "policy.tuning.kind": "selective", "policy.tuning.norms": "true"}
    some |= {"policy.tuning.targets": "[layers.1.mlp]", "policy.tuning.critic": "head"}
    left = stage("selective", "ppo", ppo_settings, some)
    assert all(line["metrics"]["sampler_gap_max"] < 1e-4 for line in left.metrics)
    check_exported(left, sft_full, 8)
    # As a driver leaves it that is killed after the commit of the second step of three.
    begun = Left(shutil.copytree(left.folder, left.folder.parent / "selective-again"))
    shutil.rmtree(begun.last_checkpoint)
    shutil.rmtree(begun.policy)
    (begun.folder / "summary.json").unlink()
    assert begun.last_checkpoint.name == "step-000003"
    (begun.folder / "checkpoints/latest").write_text("step-000002\n")
    again = stage.resume(begun)
    assert again.untimed == left.untimed
    for own, other in (
        (Path(left.policy) / WHOLE, Path(again.policy) / WHOLE),
        (left.last_checkpoint, again.last_checkpoint),
    ):
        files = [path if path.is_file() else path / file_name(0) for path in (own, other)]
        assert files[0].read_bytes() == files[1].read_bytes()
