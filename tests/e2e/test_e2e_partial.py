"""PPO on answers that are made in slices."""

import json

import pytest

from tests.small_run import PPO, Left, Stages

pytestmark = pytest.mark.cluster


def test_ppo_learns_from_answers_made_in_slices(stage: Stages, ppo_settings: dict[str, object]) -> None:
    slices = {"rollout.keep_partial": True, "rollout.partial_tokens": 4}
    left: Left = stage("in-slices", "ppo", ppo_settings, slices, {"ppo.num_steps": 2})
    lengths = [len(row.token_ids) for _, row in left.journal]
    # Of 10 tokens at most: up to three slices.
    assert 8 < max(lengths) <= 10
    assert {row.finish_reason for _, row in left.journal} <= {"stop", "length"}
    # The learner's own log-probs of whole answers are those that were made slice by slice.
    assert all(line["metrics"]["sampler_gap_max"] < 1e-4 for line in left.metrics)
    rows = json.loads((left.last_checkpoint / "state.json").read_text())["state"]["ledger"]["versions"]
    counted = [(row["issued"], row["finished"], row["scored"], row["trained"]) for row in rows.values()]
    assert counted == [(PPO["ppo.prompts_per_step"],) * 4] * 2
