"""`plumbob run toy` with a few steps of every stage: what it leaves behind, and PPO from a full model with vLLM."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.plain_transformers import largest_gap, load_plain
from tests.support.small_run import TEMPERATURE, Left
from tests.support.terminal import Terminal

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
STAGES = ("pretrain", "pretrain-encoder", "sft", "reward", "ppo", "dpo", "eval")


def ppo_of(pipeline: Left) -> Left:
    return Left(pipeline.folder / "ppo")


def test_the_summary_has_the_promised_names(pipeline: Left) -> None:
    summary = pipeline.summary
    assert set(summary["stages"]) == set(STAGES)
    for name in STAGES:
        assert summary["stages"][name]["seconds"] > 0
        assert summary["stages"][name]["peak_memory_gib"] > 0
    stages = summary["stages"]
    assert 0 <= stages["reward"]["heldout_accuracy"] <= 1
    assert 0.5 <= stages["reward"]["noise_ceiling"] <= 1
    for name in ("sft", "ppo", "dpo"):
        assert isinstance(stages[name]["gold_score"], float)
    for name in ("ppo", "dpo"):
        low, high = stages[name]["win_rate_ci95"]
        assert low <= stages[name]["win_rate"] <= high
    assert isinstance(stages["ppo"]["kl"], float)
    assert stages["ppo"]["max_sampler_gap"] < 1e-4
    assert summary["seconds_total"] >= sum(stages[name]["seconds"] for name in STAGES) * 0.99


def test_the_folder_has_what_people_and_scripts_read(pipeline: Left) -> None:
    resolved = json.loads((pipeline.folder / "resolved.json").read_text())
    assert resolved["config"]["rollout"]["temperature"] == TEMPERATURE
    assert resolved["packages"]["torch"]
    assert resolved["machine"]["num_cpus"] >= 1
    assert "git_commit" in resolved
    report = (pipeline.folder / "report.html").read_text()
    assert report.count("<svg") >= 6  # Every stage of training has its pictures.
    titles = set(re.findall(r"<figcaption><b>([^<]*)</b>", report))
    named = {"reward", "loss", "KL from the reference", "accuracy", "policy loss", "value loss", "sampler gap, largest"}
    assert named <= titles
    assert "held-out" in report
    assert "Responses that it learnt from" in report
    shown = [json.loads(line) for line in (pipeline.folder / "samples.jsonl").read_text().splitlines()]
    assert [set(sample["answers"]) for sample in shown] == [{"sft", "ppo", "dpo"}] * 3


def test_the_terminal_showed_the_stages_what_was_waited_for_and_nothing_else(
    pipeline: Left, terminal: Terminal
) -> None:
    lines = [line.rstrip() for line in ESCAPES.sub("", terminal.getvalue()).splitlines() if line.strip()]
    ended = [line for line in lines if ": done in " in line]
    assert [line.partition(":")[0] for line in ended] == list(STAGES)
    for waited_for in ("starting Ray (", "rollout worker: starting its engine ("):
        assert any(line.startswith(f"  {waited_for}") for line in lines)
    stages = "|".join(STAGES)
    shown = re.compile(rf"  \S.*|({stages}) +\S?━.*|({stages}|data|cluster|tiny|report): .*|stage  .*|({stages})  .*")
    # The bar of transformers is off where the command line begins the process, before transformers is imported.
    others = [line for line in lines if not shown.fullmatch(line) and not line.startswith("Writing model shards:")]
    assert others == []


@pytest.mark.parametrize("name", ["pretrain", "pretrain-encoder", "sft", "reward", "ppo", "dpo"])
def test_each_stage_leaves_metrics_events_and_a_checkpoint(pipeline: Left, name: str) -> None:
    left = Left(pipeline.folder / name)
    steps = [line["step"] for line in left.metrics]
    assert steps == list(range(1, left.metrics[0]["num_steps"] + 1))
    for line in left.metrics:
        assert all(seconds >= 0 for seconds in line["seconds"].values())
        assert "learn" in line["seconds"]
        assert all(value is not None for value in line["metrics"].values())
    assert list((left.folder / "tensorboard").glob("events.*"))
    assert left.last_checkpoint.name == f"step-{steps[-1]:06d}"
    assert {path.name for path in left.last_checkpoint.iterdir()} == {"learner-0.safetensors", "state.json"}


@pytest.mark.parametrize("name", ["pretrain", "pretrain-encoder"])
def test_self_supervised_loss_falls(pipeline: Left, name: str) -> None:
    losses = [line["metrics"]["loss"] for line in Left(pipeline.folder / name).metrics]
    assert losses[-1] < losses[0] - 0.05


def test_ppo_starts_at_its_reference_which_is_the_sft_model(pipeline: Left, sft_full: str, pretrained: str) -> None:
    online = ppo_of(pipeline)
    first = [row for step, row in online.journal if step == 1]
    assert len(first) == 8
    assert online.metrics[0]["metrics"]["kl"] == pytest.approx(0, abs=1e-6)
    # The sampler's policy and the learner's reference are one model, at a temperature of 0.7.
    assert max(float(abs(row.logprobs - row.ref_logprobs).max()) for row in first) < 1e-4
    rows = [row for _, row in online.journal]
    assert largest_gap(load_plain(sft_full), rows, "ref_logprobs", TEMPERATURE) < 1e-4
    # A reference that is silently the base before fine-tuning would be seen.
    assert largest_gap(load_plain(pretrained), rows, "ref_logprobs", TEMPERATURE) > 1e-2


def test_ppo_moves_away_from_its_reference(pipeline: Left) -> None:
    second = [row for step, row in ppo_of(pipeline).journal if step == 2]
    assert max(float(abs(row.logprobs - row.ref_logprobs).max()) for row in second) > 1e-3


def test_every_token_was_made_by_the_version_before_the_step(pipeline: Left) -> None:
    for step, row in ppo_of(pipeline).journal:
        assert set(row.versions.tolist()) == {step - 1}
        assert row.worker.startswith("rollout-")
        assert row.action_mask.all()


def test_sampler_and_learner_agree_at_every_step(pipeline: Left) -> None:
    phases = {"publish", "sample", "score", "logprobs", "learn"}
    for line in ppo_of(pipeline).metrics:
        assert line["metrics"]["sampler_gap_max"] < 1e-4
        # A version is committed after the line of the step that made it.
        assert set(line["seconds"]) == phases | ({"commit"} if line["step"] > 1 else set())


def test_the_journal_is_plain_parquet(pipeline: Left) -> None:
    paths = sorted((pipeline.folder / "ppo/rollouts").iterdir())
    assert [path.name for path in paths] == ["step-000001.parquet", "step-000002.parquet"]
    columns = set(pq.read_schema(paths[0]).names)
    assert columns >= {"prompt", "response", "token_ids", "logprobs", "ref_logprobs", "values", "rewards", "versions"}
    assert columns >= {"seed", "worker"}


def test_results_are_folders_of_plain_formats(pipeline: Left) -> None:
    def names(folder: str) -> set[str]:
        return {path.name for path in Path(pipeline.folder / folder).iterdir()}

    assert names("pretrain/policy") >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert names("pretrain-encoder/encoder") >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert names("reward/reward_model") >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert names("ppo/policy") >= {"adapter_config.json", "adapter_model.safetensors"}
    assert names("dpo/policy") >= {"adapter_config.json", "adapter_model.safetensors"}
