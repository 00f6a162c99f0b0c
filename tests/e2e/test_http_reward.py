"""A run whose reward is what `plumbob serve-reward` answers over HTTP, in a process that knows nothing of the run."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from plumbob.reward.open_scorer import open_scorer
from tests.support.score_requests import score_requests
from tests.support.served_rewards import serving
from tests.support.small_run import TRANSFORMERS, Stages
from tests.support.tiny_policy import write_policy
from tests.support.tiny_scorer import model_reward, write_scorer

NUM_PROMPTS, NUM_STEPS, IN_STEP = 16, 2, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the reward model, the policy and the prompts, each in letters that the reward model has tokens for."""
    folder = tmp_path_factory.mktemp("served")
    write_scorer(folder / "reward")
    write_policy(folder / "policy")
    rows = [{"prompt": f"{letter} b c"} for letter in "adefghijklmnopqr"]
    assert len(rows) == NUM_PROMPTS
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serving(folder / "reward", "--raw") as url:
        yield url


@pytest.fixture(scope="module")
def given(folder: Path) -> dict[str, object]:
    return {
        "policy.model": folder / "policy",
        "data.prompts": folder / "prompts.jsonl",
        "data.max_prompt_tokens": 32,
        "reward.num_cpus": 0.25,
        "rollout.num_cpus": 0.25,
        "rollout.max_tokens": 8,
        "online.num_steps": NUM_STEPS,
        "online.prompts_per_step": 4,
        "online.minibatch_size": IN_STEP,
        "online.samples_per_prompt": 2,
        **TRANSFORMERS,
    }


def test_a_policy_learns_from_what_is_served(
    stage: Stages, folder: Path, address: str, given: dict[str, object]
) -> None:
    parts = f"[{{kind: http, url: '{address}', name: served, weight: 0.5, batch_size: 3}}]"
    left = stage("served", "rloo", given, {"reward.parts": parts})
    rows = [row for _, row in left.journal]
    assert len(rows) == NUM_STEPS * IN_STEP
    # The same model, opened here, and asked for one response at a time.
    scorer = open_scorer(model_reward(folder / "reward"), "cpu")
    for row in rows:
        (alone,) = scorer.score(score_requests([(row.prompt, row.response)]))
        assert row.rewards["served"] == pytest.approx(alone.total, abs=1e-5)
        assert row.score == pytest.approx(0.5 * row.rewards["served"], abs=1e-6)
    assert len({row.rewards["served"] for row in rows}) > 4  # Or the responses would all be worth the same.
    first = [row.rewards["served"] for row in rows[:IN_STEP]]
    metrics = left.metrics[0]["metrics"]
    assert metrics["reward_mean/served"] == pytest.approx(sum(first) / IN_STEP, abs=1e-5)
    assert "reward_failures/served" not in metrics or metrics["reward_failures/served"] == 0
