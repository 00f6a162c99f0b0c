import math

import pytest
import torch

import plumbob.models.logprobs
from plumbob.models.logprobs import sequence_logprobs, token_logprobs

LN3 = math.log(3)


def test_log_probs_are_shifted_by_one_and_column_zero_is_zero():
    # Logits (0, ln 3) give (1/4, 3/4), (0, 0) give (1/2, 1/2). Column t is about token t, predicted at t - 1.
    logits = torch.tensor([[[0.0, LN3], [0.0, 0.0], [9.0, -9.0]]])
    logprobs = token_logprobs(logits, torch.tensor([[1, 0, 1]]), temperature=1.0)
    assert logprobs[0].tolist() == pytest.approx([0.0, math.log(1 / 4), math.log(1 / 2)])
    assert logprobs.dtype == torch.float32


def test_the_temperature_divides_the_logits():
    # (0, 2 ln 3) at temperature 2 is (0, ln 3).
    logits = torch.tensor([[[0.0, 2 * LN3], [0.0, 0.0]]])
    assert token_logprobs(logits, torch.tensor([[0, 1]]), 2.0)[0, 1].item() == pytest.approx(math.log(3 / 4))
    with pytest.raises(ValueError, match="temperature"):
        token_logprobs(logits, torch.tensor([[0, 1]]), 0.0)


def test_gradient_by_hand():
    # d log p(y) / d logits = (onehot(y) - p) / temperature = ((0, 1) - (1/4, 3/4)) / 2; weighted by 4: (-1/2, 1/2).
    logits = torch.tensor([[[0.0, 2 * LN3], [0.0, 0.0]]], requires_grad=True)
    (4 * token_logprobs(logits, torch.tensor([[0, 1]]), 2.0)).sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[[-0.5, 0.5], [0.0, 0.0]]]))


@pytest.mark.parametrize("portion", [1, 2 * 6 * 11, 2**22])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_values_and_gradient_equal_plain_autograd(temperature, portion, monkeypatch):
    monkeypatch.setattr(plumbob.models.logprobs, "PORTION", portion)  # One of the 3 rows at a time, two, or all.
    torch.manual_seed(0)
    logits = (5 * torch.randn(3, 6, 11)).requires_grad_()
    ids, weights = torch.randint(11, (3, 6)), torch.randn(3, 6)
    plain = torch.log_softmax(logits[:, :-1] / temperature, dim=-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    (expected,) = torch.autograd.grad((plain * weights[:, 1:]).sum(), logits)
    ours = token_logprobs(logits, ids, temperature)
    (found,) = torch.autograd.grad((ours * weights).sum(), logits)
    torch.testing.assert_close(ours[:, 1:], plain, rtol=0, atol=1e-6)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_bfloat16_logits_are_taken_to_float32_before_the_softmax():
    logits = (5 * torch.randn(2, 4, 50, generator=torch.Generator().manual_seed(1))).bfloat16().requires_grad_()
    ids = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])
    ours = token_logprobs(logits, ids, 0.9)
    torch.testing.assert_close(ours, token_logprobs(logits.float(), ids, 0.9), rtol=0, atol=0)
    ours.sum().backward()
    assert logits.grad.dtype == torch.bfloat16


def test_a_token_beyond_doubt_has_log_prob_zero_not_rounding():
    # The plain difference logit - logsumexp would lose digits at this size.
    assert token_logprobs(torch.tensor([[[1e6, 0.0], [0.0, 0.0]]]), torch.tensor([[0, 0]]), 1.0)[0, 1].item() == 0.0


def test_a_single_column_is_zero_and_keeps_the_graph():
    # An empty response in a batch of its own: the backward must run on every rank all the same.
    logits = torch.randn(2, 1, 5, requires_grad=True)
    token_logprobs(logits, torch.zeros(2, 1, dtype=torch.long), 1.0).sum().backward()
    assert logits.grad.abs().sum().item() == 0.0


def test_logits_and_tokens_must_match():
    with pytest.raises(ValueError, match=r"\(1, 3\).*\(1, 2\)"):
        token_logprobs(torch.zeros(1, 3, 4), torch.zeros(1, 2, dtype=torch.long), 1.0)


def test_sequence_log_probs_sum_the_mask_only():
    logprobs = torch.tensor([[float("nan"), -1.0, -2.0], [-4.0, float("nan"), float("nan")]])
    mask = torch.tensor([[False, True, True], [False, False, False]])
    assert sequence_logprobs(logprobs, mask).tolist() == [-3.0, 0.0]
