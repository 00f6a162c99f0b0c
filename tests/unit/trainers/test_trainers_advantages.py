import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.advantages import gae, masked_mean, masked_variance, whiten

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
