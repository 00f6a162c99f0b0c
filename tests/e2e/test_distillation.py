"""Distillation as a user runs it: two teachers by a column of the prompts' rows, no reward, resumed and exported."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from plumbob.models.adapter import WEIGHTS_FILE
from plumbob.rollout.journal import JournalRow
from plumbob.trainers.learner.checkpoint_shards import file_name
from tests.support.plain_transformers import largest_gap, load_plain, plain_logprobs
from tests.support.small_run import TEMPERATURE, TRANSFORMERS, WORKERS, Left, Stages, settings
from tests.support.tiny_policy import write_policy

TEXTS = ("the car", "a door", "red", "an engine")
SENTENCES = {"maths": "the car has four doors and a red engine ", "prose": "why does nobody drive it home today "}
NUM_STEPS = 10
BOUND_S = 240


def write_teacher(policy: str, sentence: str, folder: Path, is_adapter: bool) -> None:
    """The policy, trained on the sentence by plain transformers: all of it, or a LoRA adapter of plain PEFT's."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_pretrained(policy)
    tokenizer: Any = AutoTokenizer.from_pretrained(policy)
    if is_adapter:
        config = LoraConfig(r=8, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
    ids = torch.tensor(tokenizer(sentence)["input_ids"] * 8)
    rows = torch.stack([ids[start : start + 32] for start in range(16)])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=8e-3 if is_adapter else 2e-3)
    for _ in range(4):
        optimizer.zero_grad()
        model(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    if not is_adapter:
        tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy, a model and an adapter on the policy as its teachers, and prompts of which each names one of them."""
    path = tmp_path_factory.mktemp("distilled")
    policy = write_policy(path / "policy")
    for name, sentence in SENTENCES.items():
        write_teacher(policy, sentence, path / name, is_adapter=name == "prose")
    rows = [
        {"prompt": f"{text} {number}", "subject": subject}
        for text, subject in zip(TEXTS, ("maths", "prose") * 2, strict=True)
        for number in range(4)
    ]
    (path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def given(folder: Path) -> dict[str, object]:
    teachers = ", ".join(f"{{model: {folder}/{name}, name: {name}}}" for name in ("maths", "prose"))
    return {
        "policy.model": folder / "policy",
        "teachers": f"[{teachers}]",
        "teachers_by": "subject",
        "data.prompts": folder / "prompts.jsonl",
        "data.max_prompt_tokens": 32,
        "rollout.num_cpus": 0.25,
        "rollout.max_tokens": 8,
        "rollout.temperature": TEMPERATURE,
        "online.num_steps": NUM_STEPS,
        "online.prompts_per_step": 16,
        "online.samples_per_prompt": 8,
        "online.minibatch_size": 16,
        "online.num_epochs": 1,
        "online.learning_rate": 1e-3,
        **TRANSFORMERS,
    }


@pytest.fixture(scope="module")
def distilled(stage: Stages, given: dict[str, object]) -> Left:
    return stage("distilled", "distill", given)


def log_ratios(rows: list[JournalRow]) -> np.ndarray:
    return np.concatenate([row.logprobs - row.teacher_logprobs for row in rows])


def test_the_policy_comes_nearer_to_each_of_its_teachers(distilled: Left) -> None:
    lines = [line["metrics"] for line in distilled.metrics]
    assert len(lines) == NUM_STEPS and lines[0]["kl"] == 0
    for name in ("teacher_kl", "teacher_kl/maths", "teacher_kl/prose"):
        assert 0 < np.mean([line[name] for line in lines[-3:]]) < 0.85 * lines[0][name], name
    # Of a step's four updates the mean, of which the first step's have learnt something too.
    assert 0 < np.mean([line["policy_loss"] for line in lines[-3:]]) < lines[0]["policy_loss"]
    assert not {"reward", "reward_std", "clipped_share", "sampler_gap_rms"} & lines[-1].keys()
    summary = distilled.summary["stages"]["distillation"]
    assert (summary["first_teacher_kl"], summary["teacher_kl"]) == (lines[0]["teacher_kl"], lines[-1]["teacher_kl"])
    assert "train_reward" not in summary


def test_each_token_is_graded_by_its_prompts_teacher(distilled: Left, folder: Path) -> None:
    first = [row for step, row in distilled.journal if step == 1]
    assert {row.prompt_row["subject"] for row in first} == {"maths", "prose"}
    assert log_ratios(first).mean() == pytest.approx(distilled.metrics[0]["metrics"]["teacher_kl"], abs=1e-5)
    for name in ("maths", "prose"):
        own = [row for row in first if row.prompt_row["subject"] == name]
        others = [row for row in first if row.prompt_row["subject"] != name]
        teacher = load_plain(str(folder / name))
        assert largest_gap(teacher, own, "teacher_logprobs", TEMPERATURE) < 1e-4
        assert largest_gap(teacher, others, "teacher_logprobs", TEMPERATURE) > 1e-2
    assert all((row.rewards, row.score) == ({}, 0.0) for row in first)


def test_the_result_is_an_adapter_for_plain_peft(distilled: Left, folder: Path) -> None:
    last = [row for step, row in distilled.journal if step == NUM_STEPS]
    result, begun = load_plain(distilled.policy), load_plain(str(folder / "policy"))
    divergences = []
    for model in (result, begun):
        of_tokens = [
            plain_logprobs(model, row.prompt_ids, row.token_ids, TEMPERATURE) - row.teacher_logprobs for row in last
        ]
        divergences.append(float(np.concatenate(of_tokens).mean()))
    # The responses are those of the policy one update before the result, which finds them as likely.
    assert abs(divergences[0] - log_ratios(last).mean()) < 0.2 < abs(divergences[1] - log_ratios(last).mean())


def test_killed_and_resumed_it_ends_with_the_same_bytes(
    stage: Stages, given: dict[str, object], distilled: Left
) -> None:
    overrides = settings(stage.cluster, WORKERS, {"name": "distill-killed"}, given)
    command = [sys.executable, "-m", "tests.support.die_at_step", "4", "distill", *overrides]
    driver = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=BOUND_S, check=False)
    assert driver.returncode == -signal.SIGKILL, driver.stdout.decode()
    killed = stage.storage / "distill-killed"
    resumed = stage.resume(Left(Path(shutil.copytree(killed, stage.storage / "distill-resumed"))))
    assert resumed.untimed == distilled.untimed
    for path in (Path("policy") / WEIGHTS_FILE, resumed.last_checkpoint.relative_to(resumed.folder) / file_name(0)):
        assert (resumed.folder / path).read_bytes() == (distilled.folder / path).read_bytes(), path


def test_sampled_tokens_of_older_versions_with_a_reward_that_is_measured(
    stage: Stages, given: dict[str, object]
) -> None:
    sampled = {"online.estimator.form": "sampled", "online.max_staleness": 1, "online.num_steps": 3}
    reward = {"reward.parts": "[{kind: length, max: 20}]", "reward.num_cpus": 0.25}
    left = stage("distilled-sampled", "distill", given, sampled, reward)
    for line in left.metrics:
        assert {"teacher_kl", "clipped_share", "reward", "reward_mean/length"} <= line["metrics"].keys()
        assert line["metrics"]["policy_grad_norm"] > 0 and line["metrics"]["staleness_max"] <= 1
