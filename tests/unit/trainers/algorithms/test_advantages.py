import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbob.configs.settings.algorithms import DrGrpo, Gae, Grpo, ReinforcePlusPlus, ReinforcePlusPlusBaseline, Rloo
from plumbob.trainers.algorithms.advantages import (
    estimate,
    gae,
    has_spread,
    returns_to_go,
    standardised_parts,
    whiten,
)
from plumbob.trainers.algorithms.whole_batch import masked_mean, masked_variance

NAN = float("nan")


def gae_by_definition(rewards, values, gamma, lam):
    """A_i = sum_l (gamma lam)^l (r + gamma V' - V), for one row of nothing but action tokens, in Python floats."""
    after = [*values, 0.0][1:]
    deltas = [r + gamma * v_next - v for r, v_next, v in zip(rewards, after, values, strict=True)]
    return [sum((gamma * lam) ** (j - i) * deltas[j] for j in range(i, len(deltas))) for i in range(len(deltas))]


def test_gae_golden_with_padding_and_a_hole():
    # gamma 0.5, lam 0.5, so gamma lam = 0.25.
    # Row 0, tokens at 1 and 2, then padding: A2 = 2 - 0.5 = 1.5; A1 = 1 + 0.5 x 0.5 - 1 + 0.25 x 1.5 = 0.625.
    # Row 1, tokens at 0 and 3 with a hole between: the same numbers, as if they stood side by side.
    rewards = torch.tensor([[NAN, 1.0, 2.0, NAN], [1.0, NAN, NAN, 2.0]])
    values = torch.tensor([[NAN, 1.0, 0.5, NAN], [1.0, NAN, NAN, 0.5]])
    mask = torch.tensor([[False, True, True, False], [True, False, False, True]])
    advantages, returns = gae(rewards, values, mask, gamma=0.5, lam=0.5)
    assert advantages.tolist() == [[0.0, 0.625, 1.5, 0.0], [0.625, 0.0, 0.0, 1.5]]
    assert returns.tolist() == [[0.0, 1.625, 2.0, 0.0], [1.625, 0.0, 0.0, 2.0]]


def test_gae_with_gamma_and_lambda_one_is_what_is_still_to_come_less_the_value():
    # To come from each token: 1 + 2 + 3 = 6, 5, 3; values 1, 1, 1.
    rewards = torch.tensor([[1.0, 2.0, 3.0]])
    advantages, returns = gae(rewards, torch.ones(1, 3), torch.ones(1, 3, dtype=torch.bool), gamma=1.0, lam=1.0)
    assert advantages.tolist() == [[5.0, 4.0, 2.0]]
    assert returns.tolist() == [[6.0, 5.0, 3.0]]


def test_gae_with_lambda_zero_looks_one_token_ahead():
    # 1 + 0.9 x 2 - 1 = 1.8; 2 - 2 = 0.
    advantages, _ = gae(
        torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0]]), torch.ones(1, 2, dtype=torch.bool), gamma=0.9, lam=0.0
    )
    assert advantages[0].tolist() == pytest.approx([1.8, 0.0])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_gae_equals_the_double_sum_over_the_action_tokens(data):
    num_rows, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 7))
    numbers = st.floats(-3, 3, width=32)
    grid = lambda cell: data.draw(  # noqa: E731
        st.lists(st.lists(cell, min_size=width, max_size=width), min_size=num_rows, max_size=num_rows)
    )
    rewards, values, mask = grid(numbers), grid(numbers), grid(st.booleans())
    gamma, lam = data.draw(st.floats(0.1, 1)), data.draw(st.floats(0, 1))
    advantages, returns = gae(torch.tensor(rewards), torch.tensor(values), torch.tensor(mask), gamma, lam)
    for row in range(num_rows):
        kept = [t for t in range(width) if mask[row][t]]
        expected = gae_by_definition([rewards[row][t] for t in kept], [values[row][t] for t in kept], gamma, lam)
        assert advantages[row, kept].tolist() == pytest.approx(expected, abs=1e-4)
        expected_returns = [a + values[row][t] for a, t in zip(expected, kept, strict=True)]
        assert returns[row, kept].tolist() == pytest.approx(expected_returns, abs=1e-4)
        dropped = [t for t in range(width) if not mask[row][t]]
        assert advantages[row, dropped].abs().sum() == 0


def test_masked_mean_and_variance_read_only_the_mask():
    # 1, 3, 5, 7: mean 4, variance (9 + 1 + 1 + 9) / 4 = 5.
    x = torch.tensor([[1.0, NAN, 3.0], [5.0, 7.0, NAN]])
    mask = torch.tensor([[True, False, True], [True, True, False]])
    assert masked_mean(x, mask).item() == 4.0
    assert masked_variance(x, mask).item() == 5.0
    assert masked_mean(x, torch.zeros_like(mask)).item() == 0.0


def test_whiten_is_over_the_whole_batch_not_per_row():
    # (1, 3, 5, 7) -> (-3, -1, 1, 3) / sqrt(5).
    x = torch.tensor([[1.0, NAN, 3.0], [5.0, 7.0, NAN]])
    mask = torch.tensor([[True, False, True], [True, True, False]])
    root = 5**0.5
    expected = torch.tensor([[-3 / root, 0.0, -1 / root], [1 / root, 3 / root, 0.0]])
    torch.testing.assert_close(whiten(x, mask), expected)


def test_equal_advantages_whiten_to_zero():
    x = torch.full((2, 3), 7.0)
    assert whiten(x, torch.ones(2, 3, dtype=torch.bool)).abs().max().item() == 0.0
    assert whiten(x, torch.zeros(2, 3, dtype=torch.bool)).abs().max().item() == 0.0


# ------------------------------------------------------------------------------------------------------ whole responses

# Five responses. Group 7: one token (reward 1), a hole between two (2 - 1 + 3 = 4 in parts), and an empty one, which is
# in no group. Group 3: cut at the limit, 1.5 each.
REWARDS = torch.tensor([[1.0, NAN, NAN], [1.0, NAN, 3.0], [NAN, NAN, NAN], [0.5, 0.5, 0.5], [NAN, NAN, 1.5]])
MASK = torch.tensor(
    [[True, False, False], [True, False, True], [False, False, False], [True, True, True], [False, False, True]]
)
GROUPS = torch.tensor([7, 7, 7, 3, 3])


def on_tokens(advantages):
    """One number a response, on each of its tokens."""
    return torch.where(MASK, torch.tensor(advantages)[:, None], 0.0)


def estimated(estimator):
    found, returns = estimate(estimator, REWARDS, None, MASK, GROUPS)
    assert returns is None and found.dtype == torch.float32
    return found


def test_dr_grpo_by_hand():
    # Group 7: returns 1 and 4, mean 2.5. Group 3: 1.5 twice.
    torch.testing.assert_close(estimated(DrGrpo()), on_tokens([-1.5, 1.5, 0.0, 0.0, 0.0]))


def test_rloo_by_hand():
    # Less the other's: 1 - 4 and 4 - 1.
    torch.testing.assert_close(estimated(Rloo()), on_tokens([-3.0, 3.0, 0.0, 0.0, 0.0]))


def test_rloo_of_three_by_hand():
    # 1 - (2 + 6) / 2 = -3; 2 - 3.5 = -1.5; 6 - 1.5 = 4.5.
    found, _ = estimate(
        Rloo(), torch.tensor([[1.0], [2.0], [6.0]]), None, torch.ones(3, 1, dtype=torch.bool), torch.zeros(3).long()
    )
    assert found[:, 0].tolist() == pytest.approx([-3.0, -1.5, 4.5])


NEARLY_ALL_GOOD = torch.tensor([0.0] + [0.95] * 7)


def of_one_group(estimator, rewards):
    """Advantages of responses of one token."""
    mask = torch.ones(len(rewards), 1, dtype=torch.bool)
    return estimate(estimator, rewards[:, None], None, mask, torch.zeros(len(rewards)).long()).advantages[:, 0]


def check_standardised(advantages):
    """No number is further than (n - 1) / sqrt(n) of their own sample's deviations from the mean of n (Samuelson)."""
    n = len(advantages)
    assert advantages.abs().max().item() <= (n - 1) / n**0.5 + 1e-4


def left_out_by_mean_of_squares(rewards, eps=1e-6):
    """As a peer wrote it: (r - mean) / std of the others, whose variance is E[r^2] - E[r]^2 in float32.

    Of equal rewards that is not 0 but what rounding leaves, some 1e-7.
    """
    num_others = len(rewards) - 1
    mean = (rewards.sum() - rewards) / num_others
    squares = (rewards.square().sum() - rewards.square()) / num_others
    variance = (squares - mean.square()) * num_others / (num_others - 1)
    return (rewards - mean) / (variance.clamp(min=0).sqrt() + eps)


def test_one_bad_response_among_equals_by_hand():
    # Mean 7/8 x 0.95. RLOO: -0.95, and 0.95 - 6/7 x 0.95. Squares sum to 0.95^2 x 7/8, so that the deviation is
    # 0.95 / sqrt(8): -7/8 x sqrt(8) and sqrt(8) / 8.
    left_out, standardised = of_one_group(Rloo(), NEARLY_ALL_GOOD), of_one_group(Grpo(std_eps=1e-9), NEARLY_ALL_GOOD)
    assert left_out.tolist() == pytest.approx([-0.95, *[0.95 / 7] * 7], rel=1e-5)
    assert standardised.tolist() == pytest.approx([-7 / 8 * 8**0.5, *[8**0.5 / 8] * 7], rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.floats(-3, 3, width=32), st.lists(st.sampled_from([0.0, 0.0, 0.0, 1e-6, -1.0, 2.0]), min_size=2, max_size=12))
def test_nothing_that_is_standardised_in_its_group_explodes(base, steps):
    check_standardised(of_one_group(Grpo(), base + torch.tensor(steps)))


def test_that_bound_catches_a_variance_by_mean_of_squares_without_the_response_itself():
    check_standardised(of_one_group(Grpo(), NEARLY_ALL_GOOD))
    planted = left_out_by_mean_of_squares(NEARLY_ALL_GOOD)
    assert planted[0].item() < -1000
    with pytest.raises(AssertionError):
        check_standardised(planted)


def test_grpo_divides_by_the_standard_deviation_of_the_sample():
    # Of 1 and 4: sqrt((2.25 + 2.25) / (2 - 1)) = 2.1213; divided by n it would be 1.5. Epsilon 0.5 is added to it.
    expected = 1.5 / (4.5**0.5 + 0.5)
    torch.testing.assert_close(estimated(Grpo(std_eps=0.5)), on_tokens([-expected, expected, 0.0, 0.0, 0.0]))


def test_group_baseline_divides_by_the_standard_deviation_over_all_tokens():
    # R - mean on the seven tokens: -1.5, 1.5, 1.5, 0, 0, 0, 0: mean 1.5/7, mean of squares 6.75/7.
    std = (6.75 / 7 - (1.5 / 7) ** 2) ** 0.5
    found = estimated(ReinforcePlusPlusBaseline())
    torch.testing.assert_close(found, on_tokens([-1.5 / std, 1.5 / std, 0.0, 0.0, 0.0]))


def test_reinforce_plus_plus_by_hand():
    # gamma 0.5, across the hole too. To go: 1 | 1 + 1.5 = 2.5, 3 | 0.875, 0.75, 0.5 | 1.5; whitened over the seven.
    rewards = torch.where(MASK, REWARDS, NAN)
    expected = [[1.0, 0, 0], [2.5, 0, 3.0], [0, 0, 0], [0.875, 0.75, 0.5], [0, 0, 1.5]]
    torch.testing.assert_close(returns_to_go(rewards, MASK, 0.5), torch.tensor(expected))
    to_go = [1.0, 2.5, 3.0, 0.875, 0.75, 0.5, 1.5]
    mean = sum(to_go) / 7
    std = (sum((g - mean) ** 2 for g in to_go) / 7) ** 0.5
    found = estimated(ReinforcePlusPlus(gamma=0.5))
    assert found[MASK].tolist() == pytest.approx([(g - mean) / std for g in to_go], rel=1e-4)
    assert found[~MASK].abs().sum() == 0


def test_gae_gives_the_critic_its_returns_and_whitens_the_advantages_alone():
    values = torch.full_like(REWARDS, 0.5)
    plain, plain_returns = estimate(Gae(gamma=0.9, whiten=False), REWARDS, values, MASK, GROUPS)
    white, white_returns = estimate(Gae(gamma=0.9), REWARDS, values, MASK, GROUPS)
    expected, expected_returns = gae(REWARDS, values, MASK, 0.9, 0.95)
    assert torch.equal(plain, expected) and torch.equal(plain_returns, expected_returns)
    assert torch.equal(white, whiten(expected, MASK)) and torch.equal(white_returns, expected_returns)


COMPARING = [ReinforcePlusPlusBaseline(), Rloo(), Grpo(), DrGrpo()]


@pytest.mark.parametrize("estimator", COMPARING, ids=lambda estimator: estimator.kind)
def test_a_group_of_identical_rewards_gives_exactly_zero(estimator):
    # 1 as one token, as three and as a thousand of float32, as sums of KL round: 1, 0.99999999 and 1.00000005. Divided
    # by the standard deviation of these errors they would be advantages of about 1.
    rewards = torch.zeros(3, 1000)
    rewards[0, 0] = 1.0
    rewards[1, :3] = torch.tensor([0.1, 0.2, 0.7])
    rewards[2] = 0.001
    mask = rewards != 0
    totals = rewards.double().sum(dim=1)
    assert len(set(totals.tolist())) == 3 and (totals - 1).abs().max() < 1e-6
    found, _ = estimate(estimator, rewards, None, mask, torch.zeros(3, dtype=torch.long))
    assert found.abs().max().item() == 0.0


@pytest.mark.parametrize("estimator", COMPARING, ids=lambda estimator: estimator.kind)
def test_a_response_that_is_alone_in_its_group_is_compared_with_nothing(estimator):
    mask = torch.tensor([[True], [False], [True]])
    found, _ = estimate(estimator, torch.tensor([[5.0], [NAN], [-2.0]]), None, mask, torch.tensor([0, 0, 1]))
    assert found.tolist() == [[0.0], [0.0], [0.0]]


def test_spread_is_seen_by_group_and_by_more_than_rounding():
    # Group 0: 2 and 2 + 1e-6, below 1e-5 x 2. Group 1: 0 and 0.001. Group 2: an empty response does not count.
    totals = torch.tensor([2.0, 0.0, 2.000001, 0.001, 3.0, 4.0])
    answered = torch.tensor([True, True, True, True, True, False])
    found = has_spread(totals, answered, torch.tensor([0, 1, 0, 1, 2, 2]))
    assert found.tolist() == [False, True, False, True, False, False]


def test_a_reward_that_is_not_a_number_is_not_taken_for_one_without_spread():
    answered = torch.tensor([True, True])
    assert has_spread(torch.tensor([1.0, NAN]), answered, torch.tensor([0, 0])).tolist() == [True, True]


def test_each_part_of_a_reward_counts_by_its_weight_alone() -> None:
    """Two groups of three, two parts: one from 0 to 1, the other a hundred times as wide."""
    groups, has_action = torch.tensor([0, 0, 0, 1, 1, 1]), torch.ones(6, dtype=torch.bool)
    values = torch.tensor([[0.0, 1.0, 0.5, 0.2, 0.2, 0.2], [100.0, 0.0, 50.0, 0.0, 0.0, 300.0]])
    found = standardised_parts(values, torch.tensor([1.0, 0.5]), has_action, groups, eps=1e-9).sum(dim=0)
    # Group 0: standard deviations 0.5 and 50, places -1, 1, 0 and 1, -1, 0. Group 1: the first part says nothing, the
    # second has mean 100 and standard deviation sqrt((100^2 + 100^2 + 200^2) / 2) = 100 sqrt(3).
    third = 0.5 / math.sqrt(3)
    assert found.tolist() == pytest.approx([-1 + 0.5, 1 - 0.5, 0, -third, -third, 2 * third])
    # A response without an action is in no group, and its place is 0.
    without = standardised_parts(values, torch.tensor([1.0, 0.5]), torch.arange(6) != 2, groups, eps=1e-9).sum(dim=0)
    half = math.sqrt(0.5)
    assert without.tolist()[:3] == pytest.approx([-half + 0.5 * half, half - 0.5 * half, 0])
