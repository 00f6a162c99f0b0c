"""Which response of a group is the best and which the worst: by hand, with ties, holes and empty responses."""

import torch

from plumbob.configs.settings.algorithms import BestOfN, OnlineDpo
from plumbob.trainers.algorithms.advantages import best_and_worst, estimate

NAN = float("nan")
# Group 7: returns 1, 4 (1 and 3 beside a hole), an empty response, and 2. Group 3: 1.5 and 0.5. They are mixed.
REWARDS = torch.tensor(
    [[1.0, NAN, NAN], [0.5, 0.5, 0.5], [1.0, NAN, 3.0], [NAN, NAN, NAN], [NAN, NAN, 2.0], [NAN, 0.5, NAN]]
)
MASK = ~REWARDS.isnan()
GROUPS = torch.tensor([7, 3, 7, 7, 7, 3])


def of_rows(returns: list[float], groups: list[int] | None = None) -> list[float]:
    """Of responses of one token each."""
    rewards = torch.tensor(returns)[:, None]
    numbers = torch.tensor(groups or [0] * len(returns))
    return best_and_worst(rewards, torch.ones_like(rewards, dtype=torch.bool), numbers)[:, 0].tolist()


def test_the_best_and_the_worst_of_each_group_by_hand() -> None:
    on_tokens = torch.tensor([-1.0, 1.0, 1.0, 0.0, 0.0, -1.0])
    expected = torch.where(MASK, on_tokens[:, None], 0.0)
    assert torch.equal(best_and_worst(REWARDS, MASK, GROUPS), expected)
    pairs, best = (estimate(each, REWARDS, None, MASK, GROUPS) for each in (OnlineDpo(), BestOfN()))
    assert torch.equal(pairs.advantages, expected) and pairs.returns is None
    assert torch.equal(best.advantages, expected.clamp(min=0)) and best.returns is None


def test_of_equal_ones_the_first_counts_on_both_sides() -> None:
    # Whoever exchanges chosen and rejected where there is a tie, or takes the last, has another row.
    assert of_rows([0.0, 1.0, 1.0, 0.0]) == [-1.0, 1.0, 0.0, 0.0]
    assert of_rows([1.0, 1.0, 0.0, 0.0]) == [1.0, 0.0, -1.0, 0.0]
    assert of_rows([0.0, 1.0, 0.0, 1.0], [5, 5, 2, 2]) == [-1.0, 1.0, -1.0, 1.0]


def test_what_is_the_same_but_for_rounding_is_a_tie() -> None:
    # 0.1 + 0.2 against 0.3: the second is larger by rounding, and is not the better one.
    sums = [(torch.tensor(0.1) + torch.tensor(0.2)).item(), 0.3 + 1e-6, -1.0]
    assert of_rows(sums) == [1.0, 0.0, -1.0]
    # Between two rounding bounds: of 1, 1 + 0.7e-5 and 1 + 1.4e-5 the second is within rounding of both ends.
    assert of_rows([1 + 0.7e-5, 1 + 1.4e-5, 1.0]) == [1.0, 0.0, -1.0]


def test_groups_of_equal_returns_and_of_one_response_have_neither() -> None:
    assert of_rows([2.0, 2.0, 2.0 + 1e-6]) == [0.0] * 3
    assert of_rows([5.0, 1.0, 3.0], [0, 1, 2]) == [0.0] * 3
    assert best_and_worst(REWARDS, torch.zeros_like(MASK), GROUPS).abs().sum() == 0
