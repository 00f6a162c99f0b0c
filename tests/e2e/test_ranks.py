"""The number of learner ranks and the ZeRO stage change memory and speed, not the result."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.support.small_run import LENGTHS, Left, Stages

pytestmark = pytest.mark.slow

TWO = {"learner.num_workers": 2}


def check_same(ours: Mapping[str, object], theirs: Mapping[str, object]) -> None:
    """Two lines of `metrics.jsonl`, as far as float32 sums in another order can be the same."""
    assert ours["metrics"] == pytest.approx(theirs["metrics"], rel=1e-3, abs=1e-4), ours["step"]


@pytest.fixture(scope="module", autouse=True)
def dpo_of_one_rank(stage: Stages, dpo_settings: dict[str, object]) -> Left:
    """Before all others: starting ranks again takes seconds."""
    return stage("dpo-one-rank", "dpo", dpo_settings)


@pytest.fixture(scope="module")
def dpo_settings(world: Path, sft_lora: Left) -> dict[str, object]:
    return {
        **{"data.pairs": world / "pairs.jsonl", "data.heldout_pairs": world / "heldout_pairs.jsonl"},
        **{"policy.model": sft_lora.policy, "dpo.batch_size": 16, "dpo.learning_rate": 3e-3},
        **LENGTHS,
    }


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_two_ranks_learn_what_one_learns(
    stage: Stages, sft_settings: dict[str, object], sft_lora: Left, zero_stage: int
) -> None:
    two = stage(
        f"sft-zero{zero_stage}",
        "sft",
        sft_settings,
        # 6 rows a rank and 4 in a micro-batch: neither cut is the one rank's own.
        TWO | {"learner.zero_stage": zero_stage, "learner.micro_batch_size": 4},
    )
    assert len(two.untimed) == len(sft_lora.untimed) == 5
    for ours, theirs in zip(two.untimed, sft_lora.untimed, strict=True):
        check_same(ours, theirs)
    heldout = [left.summary["stages"]["sft"]["heldout_loss"] for left in (two, sft_lora)]
    assert heldout[0] == pytest.approx(heldout[1], rel=1e-3)


def test_two_ranks_prefer_what_one_prefers(
    stage: Stages, dpo_settings: dict[str, object], dpo_of_one_rank: Left
) -> None:
    one = dpo_of_one_rank
    # 8 pairs a rank, 3 in a micro-batch.
    two = stage("dpo-two-ranks", "dpo", dpo_settings, TWO | {"learner.zero_stage": 2, "learner.micro_batch_size": 3})
    ours, theirs = two.untimed, one.untimed
    assert len(ours) == len(theirs) == 4
    # Before the first update every margin is 0 but for rounding, and which answer is ahead is chance.
    del ours[0]["metrics"]["accuracy"], theirs[0]["metrics"]["accuracy"]
    for line, other in zip(ours, theirs, strict=True):
        check_same(line, other)
    # The two have learnt something to agree on.
    assert abs(one.untimed[-1]["metrics"]["margin"]) > 1e-2
    heldout = [left.summary["stages"]["dpo"]["heldout_loss"] for left in (two, one)]
    assert heldout[0] == pytest.approx(heldout[1], rel=1e-3)


def test_two_ranks_reinforce_what_one_reinforces(
    stage: Stages, ppo_settings: dict[str, object], ppo_from_adapter: Left
) -> None:
    """The first step, to float32 rounding, on which rests what later steps sample."""
    two = stage("ppo-two-ranks", "ppo", ppo_settings, TWO | {"learner.zero_stage": 3, "learner.micro_batch_size": 3})
    assert len(two.untimed) == len(ppo_from_adapter.untimed) == 3
    check_same(two.untimed[0], ppo_from_adapter.untimed[0])
    for ours, theirs in zip(two.untimed, ppo_from_adapter.untimed, strict=True):
        assert set(ours["metrics"]) == set(theirs["metrics"])
        assert all(math.isfinite(value) for value in ours["metrics"].values()), ours["step"]
        # The policy that was published is the one that every rank holds.
        assert ours["metrics"]["sampler_gap_max"] < 1e-4
    first, other = ([row for step, row in left.journal if step == 1] for left in (two, ppo_from_adapter))
    assert len(first) == len(other) == 8
    for ours, theirs in zip(first, other, strict=True):
        assert ours.prompt_id == theirs.prompt_id
        np.testing.assert_array_equal(ours.token_ids, theirs.token_ids)
        for name in ("logprobs", "ref_logprobs", "values"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-4, err_msg=name)
