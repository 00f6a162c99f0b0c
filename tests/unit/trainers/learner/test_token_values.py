"""What an update measures of tokens is the same however its rows were dealt out: by hand, and over ranks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plumbob.trainers.learner.learner_protocol import UpdatePlan
from plumbob.trainers.learner.token_values import TokenLog, TokenMeasures, TokenRows, join_ranks
from plumbob.trainers.online.experience import Experience
from plumbob.trainers.online.objective import CLIPPED, ENTROPIES, RATIOS, TrajectoryBatch, forward_with_entropies
from tests.support.learner_ranks import TEMPERATURE, LearnerCase, Ranks, ragged_experience, tiny_learner
from tests.support.learner_updates import SIX_TWICE

NUM_ROWS = 6
OLD = -3.7
"""What the ragged experience has for every old log-prob."""


def batch_of() -> Experience:
    return replace(ragged_experience(), asks_entropies=True).rows(np.arange(NUM_ROWS))


def forward_before(case: LearnerCase) -> np.ndarray:
    """Log-probs and entropies [B, 2, T] before anything is learnt."""
    batch = batch_of()
    asked = TrajectoryBatch(batch.input_ids, batch.attention_mask, batch.action_mask, TEMPERATURE)
    return tiny_learner(case).compute(asked, "policy", forward_with_entropies)


def measured(case: LearnerCase, plan: UpdatePlan) -> dict[str, TokenRows]:
    return dict(tiny_learner(case).update(batch_of(), plan).tokens)


def of_each(ranks: Ranks, case: LearnerCase, plan: UpdatePlan) -> dict[str, list[np.ndarray]]:
    """Name -> of each row its tokens' numbers, over all ranks."""
    joined = join_ranks(ranks.run(measured, case, plan))
    return {name: rows.of_each(NUM_ROWS) for name, rows in joined.items()}


def test_rows_come_back_to_their_places_and_those_not_measured_are_empty() -> None:
    first = TokenRows(np.array([3, 0]), np.array([1, 2]), np.array([30, 1, 2], np.float32))
    other = TokenRows(np.array([2]), np.array([0]), np.array([], np.float32))
    found = join_ranks([{"x": first}, {"x": other}])["x"].of_each(5)
    assert [row.tolist() for row in found] == [[1, 2], [], [], [30], []]


def test_what_begins_with_first_is_of_the_first_epoch_and_the_rest_of_the_last() -> None:
    log = TokenLog(3)
    mask = torch.tensor([[False, True, True], [True, False, False]])
    for epoch in range(3):
        log.epoch = epoch
        numbers = torch.arange(6.0).reshape(2, 3) + 10 * epoch
        log.add(np.array([1, 0]), TokenMeasures(mask, {"first_x": numbers, "y": numbers}))
        log.add(np.array([2, 3]), None)
    found = {name: [row.tolist() for row in rows.of_each(2)] for name, rows in log.joined().items()}
    assert found == {"first_x": [[3.0], [1.0, 2.0]], "y": [[23.0], [21.0, 22.0]]}


def test_an_update_measures_what_a_forward_before_it_says(one_rank: Ranks, llama: Path) -> None:
    """One optimizer step: nothing has moved at its forward."""
    case = LearnerCase(llama)
    (known,) = one_rank.run(forward_before, case)
    found = of_each(one_rank, case, UpdatePlan(NUM_ROWS, 1, 1.0, 0))
    mask = batch_of().action_mask.numpy()
    ratios = np.exp(known[:, 0] - OLD)
    advantages = batch_of().advantages.numpy()
    # Clipped at 0.5 and 1.5, where the plain surrogate is the larger one.
    is_clipped = np.where(advantages > 0, ratios > 1.5, ratios < 0.5)
    assert 0.1 < is_clipped[mask].mean() < 0.9
    for row in range(NUM_ROWS):
        np.testing.assert_allclose(found[RATIOS][row], ratios[row][mask[row]], rtol=1e-4)
        np.testing.assert_allclose(found[ENTROPIES][row], known[row, 1][mask[row]], rtol=1e-4)
        assert found[CLIPPED][row].tolist() == is_clipped[row][mask[row]].tolist()


def asked_for_entropies(case: LearnerCase, plan: UpdatePlan) -> list[bool]:
    """Of each forward of an update."""
    learner, asked = tiny_learner(case), []
    own = learner.engine.forward

    def forward(*inputs: Any) -> torch.Tensor:
        asked.append(inputs[-1] is True)
        return own(*inputs)

    learner.engine.forward = forward  # type: ignore[method-assign]
    learner.update(batch_of(), plan)
    return asked


def test_the_first_epoch_alone_computes_entropies(one_rank: Ranks, llama: Path) -> None:
    """The policy's forward and the critic's, in each of two epochs."""
    (asked,) = one_rank.run(asked_for_entropies, LearnerCase(llama), SIX_TWICE)
    assert asked == [True, False, False, False]


@pytest.mark.parametrize("changes", [{"micro_batch_size": 1}, {"zero_stage": 3, "micro_batch_size": 2}])
def test_it_does_not_depend_on_ranks_or_micro_batches(
    one_rank: Ranks, two_ranks: Ranks, llama: Path, changes: dict[str, int]
) -> None:
    """Two epochs, in an order of their own each."""
    expected = of_each(one_rank, LearnerCase(llama), SIX_TWICE)
    found = of_each(two_ranks, replace(LearnerCase(llama), **changes), SIX_TWICE)
    assert found.keys() == expected.keys() == {RATIOS, CLIPPED, ENTROPIES}
    for name, rows in expected.items():
        for ours, theirs in zip(found[name], rows, strict=True):
            assert len(theirs)
            np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=1e-4, err_msg=name)
