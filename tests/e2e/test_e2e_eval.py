"""`plumbob eval --json`: figures of a reward model and of a policy, and nothing else on stdout."""

import json
from pathlib import Path
from typing import Any

import pytest

from console.cli import main
from reward.bert import BertScorer
from tests.e2e.conftest import Stage
from tests.small_run import ROLLOUT, TRANSFORMERS, WORKERS, Left, settings


def evaluated(capfd: pytest.CaptureFixture[str], *overrides: str) -> dict[str, Any]:
    capfd.readouterr()
    assert main(["eval", "--json", *overrides]) == 0
    content: dict[str, Any] = json.loads(capfd.readouterr().out)
    return content


def test_a_reward_model_on_pairs(
    capfd: pytest.CaptureFixture[str], stage: Stage, world: Path, reward_model: str
) -> None:
    path = world / "heldout_pairs.jsonl"
    reward = {"reward.model": reward_model, "reward.max_tokens": 64, "data.pairs": path}
    figures = evaluated(capfd, *settings(stage.cluster, {"name": "eval-pairs"}, reward))
    pairs = [json.loads(line) for line in path.read_text().splitlines()]
    scorer = BertScorer(reward_model, 8, 64, normalize=False)
    chosen, rejected = (scorer.raw_scores([(p["prompt"], p[side]) for p in pairs]) for side in ("chosen", "rejected"))
    assert figures["num_pairs"] == len(pairs) == 16
    assert figures["accuracy"] == sum(c > r for c, r in zip(chosen, rejected, strict=True)) / 16
    low, high = figures["accuracy_ci95"]
    assert 0 <= low < figures["accuracy"] < high <= 1
    assert 0 <= figures["calibration_error"] <= 1
    mean_margin = (sum(chosen) - sum(rejected)) / 16
    assert figures["mean_margin"] == pytest.approx(mean_margin, abs=1e-5)


def test_a_policy_against_a_baseline(
    capfd: pytest.CaptureFixture[str], stage: Stage, world: Path, reward_model: str, sft_lora: Left
) -> None:
    policy = {"policy.model": sft_lora.policy, "policy.baseline": sft_lora.policy}
    asked = {"data.prompts": world / "heldout_prompts.jsonl", "evaluation.num_prompts": 6}
    reward = {"reward.model": reward_model}
    overrides = settings(stage.cluster, WORKERS, {"name": "eval-policy"}, TRANSFORMERS, ROLLOUT, policy, asked, reward)
    figures = evaluated(capfd, *overrides)
    assert figures["num_prompts"] == 6
    # The same policy with the same seeds gives the same answers: all ties, each half a win, no gain and no KL.
    assert figures["win_rate"] == 0.5
    assert figures["win_rate_ci95"] == [0.5, 0.5]
    assert figures["reward_gain"] == 0
    assert figures["kl"] == pytest.approx(0, abs=1e-3)
    assert -10 < figures["reward"] < 10
