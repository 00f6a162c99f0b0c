"""How records of pairs are counted, drawn and ordered, and one real DPO run that reaches its optimum. About 20 s."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from plumbob.data.epoch_order import EpochBatches
from plumbob.verify.rows.offline_rows import OFFLINE_ROWS, OfflineRow, PairPlan
from plumbob.verify.training.train_offline import drawn_counts, evenly_ordered, exact_counts, in_training_order, rounds
from plumbob.verify.world.problem import Measurement, Size
from tests.support.learner_ranks import Ranks

FAST_ROW = replace(
    next(row for row in OFFLINE_ROWS if isinstance(row, OfflineRow)),
    plan=PairPlan(Size(depth=2), 96, rounds_per_step=4),
)
"""DPO on exact pairs of 13 responses."""


def checks_of(folder: Path) -> tuple[Measurement, ...]:
    return FAST_ROW.measure(0, folder)


def test_a_real_run_reaches_the_optimum_of_its_loss(one_rank: Ranks, tmp_path: Path) -> None:
    checks = one_rank.run(checks_of, tmp_path)[0]
    assert all(check.holds for check in checks), checks


@pytest.mark.parametrize("num_responses", [5, 6])
def test_a_tournament_pairs_all_responses_once_and_none_twice_in_a_round(num_responses: int) -> None:
    found = rounds(num_responses)
    pairs = [frozenset(pair) for meeting in found for pair in meeting]
    assert sorted(map(sorted, pairs)) == [list(pair) for pair in itertools.combinations(range(num_responses), 2)]
    assert all(len({i for pair in meeting for i in pair}) == 2 * (num_responses // 2) for meeting in found)


def test_exact_counts_are_probabilities_in_so_many_copies() -> None:
    wins = np.array([[0.0, 0.7], [0.3, 0.0]])
    assert exact_counts(wins, copies=8).tolist() == [[0, 6], [2, 0]]  # 5.6 and 2.4.


def test_drawn_counts_have_all_copies_of_each_pair() -> None:
    wins = np.array([[[0.0, 1.0, 0.5], [0.0, 0.0, 0.5], [0.5, 0.5, 0.0]]])
    counts = drawn_counts(wins, seed=0, copies=9)[0]
    assert (counts + counts.T)[np.triu_indices(3, 1)].tolist() == [9, 9, 9]
    assert (counts[0, 1], counts[1, 0]) == (9, 0)  # Certain.


def test_records_are_those_counted_and_every_stretch_is_like_the_whole() -> None:
    random = np.random.default_rng(0)
    counts = drawn_counts(np.triu(random.uniform(0.1, 0.9, size=(2, 6, 6)), 1), seed=1, copies=20)
    order = evenly_ordered(counts)
    found = np.zeros_like(counts)
    for place in order:
        found[place] += 1
    assert (found == counts).all()
    # 20 x 5 rounds of 3 pairs of 2 prompts. In a tenth of them, 10 rounds, every response meets 10 others, and its wins
    # are a tenth of all its wins within the rounding of each round: independent labels would be off by 1.5 and more.
    tenth = np.zeros_like(counts)
    for place in order[:60]:
        tenth[place] += 1
    assert (tenth.sum(2) + tenth.sum(1) == 10).all()
    assert np.abs(tenth.sum(2) - counts.sum(2) / 10).max() < 1.5


def test_the_trainer_takes_records_in_the_order_that_they_were_laid_out_for() -> None:
    records = in_training_order([f"record {i}" for i in range(10)], seed=3)
    batches = EpochBatches(10, 5, 1, seed=3)
    assert [records[i] for step in range(2) for i in batches.batch_at(step)] == [f"record {i}" for i in range(10)]
