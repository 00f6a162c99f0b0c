"""Runs on a base of 4 bits: fine-tuned, aligned with a critic, killed and resumed; as transformers and peft do."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from plumbob.models.adapter import WEIGHTS_FILE
from tests.support.plain_transformers import plain_logprobs
from tests.support.small_run import (
    LENGTHS,
    PIPELINE,
    ROLLOUT,
    TRANSFORMERS,
    WORKERS,
    Left,
    Stages,
    settings,
    tensors_of,
)

NF4: dict[str, object] = {"policy.quantization.kind": "nf4"}
BOUND_S = 240


@pytest.fixture(scope="module")
def sft_nf4(stage: Stages, sft_settings: dict[str, object]) -> Left:
    return stage("sft-nf4", "sft", sft_settings, NF4)


@pytest.fixture(scope="module")
def ppo_nf4(ppo_settings: dict[str, object], sft_nf4: Left) -> dict[str, object]:
    return {**ppo_settings, **NF4, "policy.model": sft_nf4.policy}


def load_plain_nf4(folder: str) -> Any:
    """The adapter on its base in 4 bits; without dropout, in training mode: an evaluation may compute in bfloat16.

    Rows of down_proj are 96 wide, which no block of 64 ends with: it stays as it is.
    """
    base = json.loads((Path(folder) / "adapter_config.json").read_text())["base_model_name_or_path"]
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        llm_int8_skip_modules=["lm_head", "down_proj"],
    )
    model = AutoModelForCausalLM.from_pretrained(base, quantization_config=config, dtype=torch.float32)
    return PeftModel.from_pretrained(model, folder).train()


def heldout_nats(folder: str, rows: list[dict[str, str]]) -> float:
    """Of a token of the responses and their EOS, by plain transformers and peft."""
    tokenizer, model, found = AutoTokenizer.from_pretrained(folder), load_plain_nf4(folder), []
    for row in rows:
        prompt, response = (
            tokenizer(row[name], add_special_tokens=False).input_ids for name in ("prompt", "completion")
        )
        found.append(plain_logprobs(model, prompt, [*response, tokenizer.eos_token_id], 1.0))
    return -float(np.concatenate(found).mean(dtype=np.float64))


def test_supervised_fine_tuning(
    stage: Stages,
    sft_settings: dict[str, object],
    sft_nf4: Left,
    sft_lora: Left,
    world: Path,
    pretrained: str,
    tmp_path: Path,
) -> None:
    losses = [line["metrics"]["loss"] for line in sft_nf4.metrics]
    assert losses[-1] < losses[0] - 0.1
    # Its own base, and near what the float base learns.
    floats = [line["metrics"]["loss"] for line in sft_lora.metrics]
    assert losses[0] != floats[0] and losses[0] == pytest.approx(floats[0], abs=0.2)
    config = json.loads((Path(sft_nf4.policy) / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == pretrained
    names = {name.partition(".")[2] for name in tensors_of(sft_nf4.last_checkpoint) if name != "step"}
    assert len(names) == 28 and all(".lora_" in name for name in names)
    # Rows for an evaluation of one's own, told as the run tells it.
    rows = [json.loads(line) for line in (world / "demonstrations.jsonl").read_text().splitlines()][:16]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    measured = {
        "data.heldout_demonstrations": tmp_path / "few.jsonl",
        "data.heldout_fraction": 0,
        "data.overlap": "drop",
    }
    left = stage("sft-nf4-measured", "sft", {**sft_settings, **measured}, NF4)
    assert left.summary["stages"]["sft"]["heldout_loss"] == pytest.approx(heldout_nats(left.policy, rows), rel=1e-4)


def test_preferences(stage: Stages, sft_nf4: Left, world: Path) -> None:
    files = {"data.pairs": world / "pairs.jsonl", "data.heldout_pairs": world / "heldout_pairs.jsonl"}
    chosen = {"policy.model": sft_nf4.policy, "dpo.batch_size": 16, "dpo.learning_rate": 5e-3}
    left = stage("dpo-nf4", "dpo", files, LENGTHS, chosen, NF4)
    losses = [line["metrics"]["loss"] for line in left.metrics]
    # Policy and reference are one model: every margin is 0.
    assert losses[0] == pytest.approx(np.log(2), abs=1e-6) and min(losses) < losses[0] - 0.01


def test_a_critic_and_a_sampler_with_the_learners_floats(stage: Stages, ppo_nf4: dict[str, object]) -> None:
    left = stage("ppo-nf4", "ppo", ppo_nf4)
    lines = [line["metrics"] for line in left.metrics]
    assert lines[0]["kl"] == 0.0
    assert all(line["value_grad_norm"] > 0 and line["policy_grad_norm"] > 0 for line in lines)
    assert all(line["sampler_gap_max"] < 1e-4 for line in lines)


def test_a_sampler_with_the_stored_weights_is_measured_and_corrected_for(
    stage: Stages, ppo_nf4: dict[str, object]
) -> None:
    left = stage("ppo-nf4-stored", "ppo", ppo_nf4, {"rollout.quantised_base": "stored"})
    first, *others = (line["metrics"] for line in left.metrics)
    assert first["kl"] == 0.0  # Of the learners' own policy and reference.
    assert first["sampler_gap_mean"] > 1e-3 and first["sampler_gap_max"] > 1e-2
    # From the first step on every token's weight is by the learner's own log-prob, which all are computed for.
    assert all("sampler_gap_rms" not in line and line["sampler_gap_mean"] > 1e-3 for line in others)
    notes = left.summary["stages"]["ppo"]["notes"]
    assert any(
        "learners compute with them in 4 bits" in note and "online.importance corrects" in note for note in notes
    )


def test_killed_and_resumed_to_the_same_bytes(stage: Stages, ppo_nf4: dict[str, object]) -> None:
    undisturbed = stage("ppo-nf4-whole", "ppo", ppo_nf4)
    overrides = settings(stage.cluster, WORKERS, {"name": "ppo-nf4-killed"}, ppo_nf4)
    command = [sys.executable, "-m", "tests.support.die_at_step", "2", "ppo", *overrides]
    died = subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S, check=False, env=os.environ)
    assert died.returncode == -signal.SIGKILL, died.stdout + died.stderr
    resumed = stage.resume(Left(stage.storage / "ppo-nf4-killed"))
    weights: list[Mapping[str, Any]] = [load_file(f"{left.policy}/{WEIGHTS_FILE}") for left in (resumed, undisturbed)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert resumed.untimed == undisturbed.untimed


@pytest.mark.slow
def test_a_pipeline_from_one_file(stage: Stages, world: Path, pretrained: str) -> None:
    """Fine-tuned, scored, aligned with a critic and by pairs, and evaluated, all on 4 bits."""
    bits = {"policy.sft_tuning.kind": "lora", "reward.tuning.kind": "lora", "reward.quantization.kind": "nf4", **NF4}
    left = stage("pipeline-nf4", "toy", {**PIPELINE, **bits}, TRANSFORMERS, {"evaluation.num_prompts": 8})
    online = [json.loads(line)["metrics"] for line in (left.folder / "ppo/metrics.jsonl").read_text().splitlines()]
    assert online[0]["kl"] == 0.0 and all(line["sampler_gap_max"] < 1e-4 for line in online)
    assert all(line["value_grad_norm"] > 0 for line in online)
    first = json.loads((left.folder / "dpo/metrics.jsonl").read_text().splitlines()[0])["metrics"]["loss"]
    assert first == pytest.approx(np.log(2), abs=1e-6)
    stages = left.summary["stages"]
    assert stages["reward"]["accuracy"] > 0 and {"kl", "win_rate"} <= stages["ppo"].keys()
    resolved = json.loads((left.folder / "resolved.json").read_text())["config"]["policy"]
    assert resolved["quantization"]["kind"] == "nf4"


def test_an_evaluation_measures_with_the_floats_of_the_learners(
    stage: Stages, sft_nf4: Left, world: Path, reward_model: str
) -> None:
    """Of a policy that is its own baseline all difference is between sampler and learner."""
    asked = {"data.prompts": world / "heldout_prompts.jsonl", "evaluation.num_prompts": 4, "reward.model": reward_model}
    both = {"policy.model": sft_nf4.policy, "policy.baseline": sft_nf4.policy, "name": "eval-nf4"}
    given = settings(stage.cluster, WORKERS, TRANSFORMERS, ROLLOUT, asked, both, NF4)
    assert abs(stage.evaluate(*given)["kl"]) < 1e-3
    measured = [f"perplexity.text={world / 'text.jsonl'}", "perplexity.max_blocks=4", "perplexity.block_tokens=32"]
    of_bits, of_floats = (stage.evaluate(*given, *measured, *more) for more in ((), ("policy.quantization=null",)))
    assert of_bits["perplexity"] != of_floats["perplexity"]
    assert of_bits["perplexity"] == of_bits["baseline_perplexity"]
    assert not any("as it is stored" in note for note in of_bits.get("notes", ()))
    assert any("measured on the base as it is stored: policy.quantization.kind=nf4" in n for n in of_floats["notes"])
