"""What a gradient of pairs may not depend on: micro-batches, order of pairs, ranks and ZeRO stage."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbob.configs.settings.algorithms import OnlineDpo
from plumbob.configs.settings.offline_objectives import DpoLoss
from plumbob.configs.settings.training import OnlineSettings
from plumbob.trainers.learner.learner_protocol import UpdatePlan
from plumbob.trainers.online.objectives.ranked_responses import PairSide, ResponsePairs
from plumbob.trainers.online.row_masks import kept_tokens
from tests.support.learner_ranks import LearnerCase, Ranks, numpy_state, ragged_experience, tiny_learner

NUM_PAIRS = 6
NO_PAIR = 3
"""A group without spread: its row teaches nothing, and is not counted."""
PAIRS = OnlineSettings(learning_rate=1e-3, max_grad_norm=1e6, estimator=OnlineDpo(loss=DpoLoss(beta=0.5)))
Gradient = dict[str, np.ndarray]


def ragged_response_pairs() -> ResponsePairs:
    """Rows 0 to 5 of ragged responses against rows 2 to 7."""
    made = ragged_experience(PAIRS)
    noise = torch.randn(made.action_mask.shape, generator=torch.Generator().manual_seed(3))
    reference = torch.where(made.action_mask, noise - 3.7, 0.0)

    def side(first: int) -> PairSide:
        rows = slice(first, first + NUM_PAIRS)
        is_pair = (torch.arange(NUM_PAIRS) != NO_PAIR)[:, None]
        attended, learnt = kept_tokens(made.attention_mask[rows], made.action_mask[rows], is_pair)
        return PairSide(made.input_ids[rows], attended, learnt, made.old_logprobs[rows], reference[rows])

    return ResponsePairs(side(0), side(2))


def gradient(case: LearnerCase, order: list[int]) -> Gradient:
    """Ten times Adam's first moment after one step: the gradient, whole on every rank."""
    learner = tiny_learner(case, PAIRS)
    learner.update(ragged_response_pairs().rows(np.array(order)), UpdatePlan(len(order), 1, 1.0, 0))
    return {name: 10 * value for name, value in numpy_state(learner).items() if name.startswith("exp_avg.")}


def check_same(found: Gradient, expected: Gradient) -> None:
    assert found.keys() == expected.keys()
    for parameter, tensor in expected.items():
        # float32 sums of some hundred terms in another order: about 1e-6 of the tensor's largest element.
        assert np.abs(found[parameter] - tensor).max() <= 2e-5 * float(np.abs(tensor).max()), parameter


@pytest.fixture(scope="module")
def expected(one_rank: Ranks, llama: Path) -> Gradient:
    """One rank, ZeRO 0, all pairs at once."""
    found: Gradient = one_rank.run(gradient, LearnerCase(llama), list(range(NUM_PAIRS)))[0]
    assert all(np.abs(tensor).max() > 1e-5 for tensor in found.values())
    return found


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_the_gradient_is_the_batchs_own(
    one_rank: Ranks, two_ranks: Ranks, three_ranks: Ranks, llama: Path, expected: Gradient, data: st.DataObject
) -> None:
    ranks = data.draw(st.sampled_from([one_rank, two_ranks, three_ranks]))
    case = LearnerCase(
        llama, zero_stage=data.draw(st.integers(0, 3)), micro_batch_size=data.draw(st.integers(1, NUM_PAIRS))
    )
    for found in ranks.run(gradient, case, data.draw(st.permutations(range(NUM_PAIRS)))):
        check_same(found, expected)


def test_a_group_without_spread_changes_nothing(one_rank: Ranks, llama: Path, expected: Gradient) -> None:
    pairs = [place for place in range(NUM_PAIRS) if place != NO_PAIR]
    check_same(one_rank.run(gradient, LearnerCase(llama), pairs)[0], expected)
