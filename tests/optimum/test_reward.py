"""The real reward model against the rewards that explain its human feedback best. About 15 s on one core."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from plumbob.verify.optima.count_optima import all_rankings
from plumbob.verify.rows.reward_rows import (
    EXACT_PAIRS,
    FLIPPED_PAIRS,
    BradleyTerryRow,
    RewardFitRow,
    TwoRankedRow,
    drawn_rankings,
    relative_error,
)
from plumbob.verify.training.train_reward import cyclic_sets, evenly_ranked
from plumbob.verify.world.problem import Measurement
from tests.support.learner_ranks import Ranks


def checks_of(row: RewardFitRow | BradleyTerryRow | TwoRankedRow, folder: Path) -> tuple[Measurement, ...]:
    return row.measure(0, folder)


@pytest.mark.parametrize(
    "row", [RewardFitRow(), EXACT_PAIRS, FLIPPED_PAIRS, TwoRankedRow()], ids=lambda row: row.setting
)
def test_the_reward_model_reaches_its_target(
    one_rank: Ranks, tmp_path: Path, row: RewardFitRow | BradleyTerryRow | TwoRankedRow
) -> None:
    checks = one_rank.run(checks_of, row, tmp_path)[0]
    assert all(check.holds for check in checks), checks


def test_the_error_is_that_of_differences_over_their_spread() -> None:
    # Rewards -1, 0, 1: differences 1, 1, 2, of sum of squares 6. Twice too large: their errors are the same 1, 1, 2.
    # The second prompt's are 10% too large. A prompt's own constant would be taken off before.
    expected = np.array([[-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]])
    assert relative_error(expected * np.array([[2.0], [1.1]]), expected) == pytest.approx(1.0)
    assert relative_error(expected * 1.1, expected) == pytest.approx(0.1)


def test_every_three_responses_are_ranked_equally_often_and_the_best_first_most() -> None:
    rankings = all_rankings(4, 3)
    counts = drawn_rankings(rankings, np.array([[12.0, 0.0, 0.0, 0.0]]), seed=0)
    # 4 sets of 3 responses, 32 rankings of each.
    assert counts.sum() == 128
    # Response 0 stands in 3 of the sets, and wins with exp(12) to 2: always, in 96 draws.
    assert counts[0, rankings[:, 0] == 0].sum() == 96


def test_turning_sets_hold_every_response_equally_often() -> None:
    # 0 1 2 turned: 1 2 3, 2 3 4, 3 4 0, 4 0 1. Then 0 1 3 and so on: 10 sets of 3 out of 5.
    sets = cyclic_sets(5, 3)
    assert sets[:6] == [(0, 1, 2), (1, 2, 3), (2, 3, 4), (0, 3, 4), (0, 1, 4), (0, 1, 3)]
    assert sorted(sets) == list(itertools.combinations(range(5), 3))
    assert all(sorted(sum(sets[i : i + 5], ())) == sorted([0, 1, 2, 3, 4] * 3) for i in (0, 5))


def test_rankings_are_those_drawn_and_every_stretch_is_like_the_whole() -> None:
    rankings = all_rankings(7, 3)
    counts = drawn_rankings(rankings, np.random.default_rng(0).uniform(-1, 1, size=(2, 7)), seed=1)
    order = np.array(evenly_ranked(rankings, counts))
    found = np.zeros_like(counts)
    np.add.at(found, tuple(order.T), 1)
    assert (found == counts).all()
    # 32 copies of 35 sets for 2 prompts. A response is last in about a third of the 15 sets that it stands in: after a
    # quarter of the copies, 120 of its rankings, independent draws would be off by sqrt(120 x 2 / 9) = 5 in the mean.
    quarter = order[: len(order) // 4]
    for p in range(2):
        last = np.bincount(rankings[quarter[quarter[:, 0] == p, 1], 2], minlength=7)
        expected = np.bincount(rankings[:, 2], weights=counts[p], minlength=7) / 4
        assert np.abs(last - expected).max() < 4 and np.sqrt(np.square(last - expected).mean()) < 2
