"""Reward losses and their gradients by hand, and what of a ragged batch is read."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plumbob.trainers.algorithms.reward_losses import (
    bradley_terry_loss,
    consistency_loss,
    ordered_pairs,
    plackett_luce_loss,
    regression_loss,
)


def leaf(*values: float) -> torch.Tensor:
    return torch.tensor(values, requires_grad=True)


def gradient(tensor: torch.Tensor) -> list[object]:
    assert tensor.grad is not None
    found: list[object] = tensor.grad.tolist()
    return found


def test_bradley_terry_by_hand() -> None:
    # Margins ln 3, 0 and -ln 3: sigmoid 3/4, 1/2, 1/4. Gradient on the chosen reward: sigmoid - 1.
    chosen, rejected = leaf(math.log(3), 5.0, 0.0), leaf(0.0, 5.0, math.log(3))
    loss = bradley_terry_loss(chosen, rejected)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(4 / 3) + math.log(2) + math.log(4))
    assert gradient(chosen) == pytest.approx([-0.25, -0.5, -0.75])
    assert gradient(rejected) == pytest.approx([0.25, 0.5, 0.75])


def test_a_margin_is_taken_off_the_difference() -> None:
    # ln 3 - ln 3 = 0 and 0 - ln 3: sigmoid 1/2 and 1/4.
    chosen = leaf(math.log(3), 7.0)
    loss = bradley_terry_loss(chosen, torch.tensor([0.0, 7.0]), torch.full((2,), math.log(3)))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2) + math.log(4))
    assert gradient(chosen) == pytest.approx([-0.5, -0.75])


def test_flipped_labels_by_hand() -> None:
    # A quarter of the labels is wrong: s is said with p = 1/4 + s/2 of s = sigmoid(d), slope s (1 - s) / 2 / p.
    # d = ln 3: s = 3/4, p = 5/8. d = 0: s = p = 1/2.
    chosen = leaf(math.log(3), 0.0)
    loss = bradley_terry_loss(chosen, torch.zeros(2), flip_rate=0.25)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(8 / 5) + math.log(2))
    assert gradient(chosen) == pytest.approx([-0.15, -0.25])


def test_labels_that_are_flipped_as_often_as_is_said_teach_the_true_difference() -> None:
    # Of 8 labels 6 would be so at d = ln 3; a quarter flipped, 5 are. Then d = ln 3 has no slope, and the loss that
    # takes all labels for right has: 8 x 3/4 - 5.
    for flip_rate, slope in ((0.25, 0.0), (0.0, 1.0)):
        better = leaf(math.log(3))
        worse = torch.zeros(1)
        said, turned = (bradley_terry_loss(*pair, flip_rate=flip_rate) for pair in ((better, worse), (worse, better)))
        (5 * said + 3 * turned).backward()
        assert gradient(better) == pytest.approx([slope], abs=1e-6)


def test_a_flipped_pair_has_its_margin_the_other_way_round() -> None:
    # d = 0, m = ln 3: both sigmoid(d - m) and sigmoid(-d - m) are 1/4, their slopes 3/16. Gradient: (1/4 - 3/4) 3/16 4.
    chosen = leaf(0.0)
    loss = bradley_terry_loss(chosen, torch.zeros(1), torch.tensor([math.log(3)]), 0.25)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(4))
    assert gradient(chosen) == pytest.approx([-0.375])


@pytest.mark.parametrize(("flip_rate", "loss", "slope"), [(0.0, 1003.0, -1.0), (0.25, math.log(4), 0.0)])
def test_a_hopeless_pair_is_finite(flip_rate: float, loss: float, slope: float) -> None:
    # d = -1000, m = 3: the order given costs 1003; a label that may be wrong is, at 1 in 4, whatever d.
    chosen = leaf(-500.0)
    found = bradley_terry_loss(chosen, torch.tensor([500.0]), torch.tensor([3.0]), flip_rate)
    found.backward()
    assert found.item() == pytest.approx(loss) and gradient(chosen) == [slope]


def test_plackett_luce_by_hand() -> None:
    # Weights 4, 2, 1: 4/7 for the first, then 2/3. Gradient: (4, 2, 1)/7 - (1, 0, 0) + (0, 2, 1)/3 - (0, 1, 0).
    # The second row has two responses, of weights 1 and 3: 1/4; its third place is not read.
    rewards = leaf(math.log(4), math.log(2), 0.0, 0.0, math.log(3), math.nan)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    loss = plackett_luce_loss(rewards.reshape(2, 3), mask)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(7 / 4) + math.log(3 / 2) + math.log(4))
    assert gradient(rewards) == pytest.approx([-3 / 7, -1 / 21, 10 / 21, -0.75, 0.75, 0.0], rel=1e-5)


def test_a_hopeless_ranking_is_finite() -> None:
    # The best is last by 1000 and the second by 500 before the third: 1000 + 500, since the greatest takes it all.
    rewards = leaf(-500.0, 0.0, 500.0)
    loss = plackett_luce_loss(rewards[None], torch.ones(1, 3, dtype=torch.bool))
    loss.backward()
    assert (loss.item(), gradient(rewards)) == (1500.0, [-1.0, -1.0, 2.0])


def test_one_response_has_no_order_to_learn() -> None:
    rewards = leaf(2.0, 9.0)
    loss = plackett_luce_loss(rewards[None], torch.tensor([[True, False]]))
    loss.backward()
    assert (loss.item(), gradient(rewards)) == (0.0, [0.0, 0.0])


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=5))
def test_plackett_luce_of_two_responses_is_bradley_terry(pairs: list[tuple[float, float]]) -> None:
    one, other = torch.tensor(pairs, requires_grad=True), torch.tensor(pairs, requires_grad=True)
    ranked = plackett_luce_loss(one, torch.ones_like(one, dtype=torch.bool))
    paired = bradley_terry_loss(other[:, 0], other[:, 1])
    (ranked + paired).backward()
    assert ranked.item() == pytest.approx(paired.item(), rel=1e-5, abs=1e-5)
    assert torch.allclose(one.grad, other.grad, atol=1e-5)  # type: ignore[arg-type]


def test_regression_by_hand() -> None:
    # (1 - 2)^2 / 2 + (3 - 0)^2 / 2; the gradient is the error.
    rewards = leaf(1.0, 3.0)
    loss = regression_loss(rewards, torch.tensor([2.0, 0.0]))
    loss.backward()
    assert (loss.item(), gradient(rewards)) == (5.0, [-1.0, 3.0])


def test_consistency_by_hand() -> None:
    # Of the first row (3 - 1)^2 and (0 - 1)^2, their mean 2.5; of the second (5 - 2)^2 alone; the third has none.
    rewards = torch.tensor([[3.0, 0.0], [5.0, 7.0], [1.0, 1.0]], requires_grad=True)
    others = torch.tensor([[1.0, 1.0], [2.0, math.nan], [math.nan, math.nan]])
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    loss = consistency_loss(rewards, others, mask)
    loss.backward()
    assert loss.item() == pytest.approx(2.5 + 9.0)
    # 2 (r - r') over the number of responses of the row.
    assert rewards.grad is not None and rewards.grad.tolist() == [[2.0, -1.0], [6.0, 0.0], [0.0, 0.0]]


def test_ordered_pairs_by_hand() -> None:
    # (3, 1, 2): 3 > 1 and 3 > 2 are right, 1 > 2 is not; margins 2, 1, -1. (5, 5): a tie. One response: no pair.
    rewards = torch.tensor([[3.0, 1.0, 2.0], [5.0, 5.0, math.nan], [4.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    found = ordered_pairs(rewards, mask)
    assert found.accuracy.item() == pytest.approx(2 / 3 + 1 / 2)
    assert found.margin.item() == pytest.approx(2 / 3)
