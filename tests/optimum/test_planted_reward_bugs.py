"""What bugs of a reward model's trainer would lead to, by hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plumbob.verify.optima.count_optima import all_rankings
from plumbob.verify.optima.planted_reward_bugs import (
    BRADLEY_TERRY_BUGS,
    FLIPPED_BUGS,
    RewardTarget,
    plackett_luce_bugs,
)
from plumbob.verify.optima.response_tree import Array
from plumbob.verify.rows.all_rows import bug_shifts
from plumbob.verify.rows.reward_rows import REWARD_ROWS, TwoRankedRow


def solved(wrong: RewardTarget | None, judged: Array) -> Array:
    assert wrong is not None
    return wrong(judged)


def test_bugs_of_bradley_terry_by_hand() -> None:
    # 3 wins of 4, so that exp of the difference is 3. With margin m, x the exp: 3 sigmoid(m - d) = sigmoid(m + d),
    # a = exp(-m): a x^2 - 2 x - 3 a = 0. Where 0.1 of the labels is flipped, 0.75 wins show as 0.9 x 0.75 + 0.1 x 0.25.
    wins, a = np.array([[0.0, 3.0], [1.0, 0.0]]), math.exp(-0.5)
    expected = {
        "rewards 10% too large": 3 ** (1 / 1.1),
        "margin 0.5": (1 + math.sqrt(1 + 3 * a**2)) / a,
        "flip rate left out": 0.7 / 0.3,
    }
    listed = BRADLEY_TERRY_BUGS | FLIPPED_BUGS
    assert listed.keys() == expected.keys()
    for name, wrong in listed.items():
        assert solved(wrong, wins) == pytest.approx(np.log(expected[name]) * np.array([0.5, -0.5])), name


def test_bugs_of_plackett_luce_by_hand() -> None:
    # Best are response 0 three times, 1 twice and 2 once. Among all, each response is taken once in every ranking.
    bug_targets = plackett_luce_bugs(all_rankings(3, 3))
    counts = np.array([2.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    best_alone = np.log([3.0, 2.0, 1.0])
    assert solved(bug_targets["the best of a ranking alone"], counts) == pytest.approx(best_alone - best_alone.mean())
    assert solved(bug_targets["among all instead of those left"], counts) == pytest.approx(np.zeros(3))


@pytest.mark.parametrize("row", REWARD_ROWS, ids=lambda row: f"{row.name}, {row.setting}")
def test_rewards_that_are_too_large_in_the_loss_are_learnt_too_small(row: Any, tmp_path: Path) -> None:
    # By 1 - 1 / 1.1, whatever the feedback.
    move = bug_shifts(row, 0, tmp_path)["rewards 10% too large"]
    assert move is None if isinstance(row, TwoRankedRow) else move == pytest.approx(1 / 11)
    assert list(tmp_path.iterdir()) == []
