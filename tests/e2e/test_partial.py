"""PPO on partial rollouts: responses that are made piece by piece."""

import json

import pytest

from tests.support.small_run import PPO, Left, Stages

pytestmark = pytest.mark.slow

SLICE = 4


def first_step(left: Left) -> dict[tuple[str, int], list[int]]:
    """Who was asked, and for which of his responses -> the tokens."""
    return {(row.prompt_id, row.sample_index): row.token_ids.tolist() for step, row in left.journal if step == 1}


def begun(responses: dict[tuple[str, int], list[int]]) -> dict[tuple[str, int], list[int]]:
    return {key: tokens[:SLICE] for key, tokens in responses.items()}


def test_ppo_learns_from_responses_made_in_slices(
    stage: Stages, ppo_settings: dict[str, object], ppo_from_adapter: Left
) -> None:
    slices = {"rollout.partial_tokens": SLICE}
    left = stage("in-slices", "ppo", ppo_settings, slices, {"online.num_steps": 2})
    ours, whole = first_step(left), first_step(ppo_from_adapter)
    # Of 10 tokens at most: up to three slices. The first is what whole responses begin with; others have other noise.
    assert begun(ours) == begun(whole)
    assert ours != whole
    assert 8 < max(map(len, ours.values())) <= 10
    assert {row.finish_reason for _, row in left.journal} <= {"stop", "length"}
    # The learner's own log-probs of whole responses are those that were made slice by slice.
    assert all(line["metrics"]["sampler_gap_max"] < 1e-4 for line in left.metrics)
    rows = json.loads((left.last_checkpoint / "state.json").read_text())["state"]["ledger"]["versions"]
    counted = [(row["issued"], row["finished"], row["scored"], row["trained"]) for row in rows.values()]
    assert counted == [(PPO["online.prompts_per_step"],) * 4] * 2
