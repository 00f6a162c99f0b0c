"""The real reward model against the rewards that explain its judgements best. About 15 s on one core."""

from pathlib import Path

import numpy as np
import pytest

from console.verify.optima_counts import all_rankings
from console.verify.problem import Check
from console.verify.reward_rows import BradleyTerryRow, RewardFitRow, TwoRankedRow, drawn_rankings, relative_error
from tests.ranks import Ranks


def checks_of(row: RewardFitRow | BradleyTerryRow | TwoRankedRow, folder: Path) -> tuple[Check, ...]:
    return row.measure(0, folder)


@pytest.mark.parametrize("row", [RewardFitRow(), BradleyTerryRow(), TwoRankedRow()], ids=lambda row: type(row).__name__)
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


def test_every_three_answers_are_ranked_equally_often_and_the_best_first_most() -> None:
    rankings = all_rankings(4, 3)
    counts = drawn_rankings(rankings, np.array([[9.0, 0.0, 0.0, 0.0]]), seed=0)
    # 4 sets of 3 answers, 8 rankings of each.
    assert counts.sum() == 32
    # Answer 0 stands in 3 of the sets, and wins with exp(9) to 2: always, in 24 draws.
    assert counts[0, rankings[:, 0] == 0].sum() == 24
