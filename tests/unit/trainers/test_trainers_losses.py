import math

import pytest
import torch

from trainers.losses import (
    bradley_terry_loss,
    causal_lm_loss,
    dpo_loss,
    masked_lm_loss,
    ppo_policy_loss,
    truncated_importance_weights,
    value_loss,
)

NAN = float("nan")


def ratios(values):
    """Log-probs with a gradient whose ratios to old log-probs of -1 are `values`; a NaN is a token outside the mask."""
    old = torch.full((1, len(values)), -1.0)
    logprobs = (torch.tensor([values]).log() - 1.0).requires_grad_()
    mask = ~torch.tensor([values]).isnan()
    return logprobs, torch.where(mask, old, NAN), mask


def test_ppo_loss_and_gradient_by_hand():
    # clip 0.2.  A   ratio  plain  clipped  surrogate  d loss / d logprob = -A ratio, or 0 where clipped
    #            +1   1.5    1.5     1.2       1.2       0
    #            +1   0.5    0.5     0.8       0.5      -0.5
    #            -1   1.5   -1.5    -1.2      -1.5       1.5
    #            -1   0.5   -0.5    -0.8      -0.8       0
    #            +2   1.0    2.0     2.0       2.0      -2.0
    logprobs, old, mask = ratios([1.5, 0.5, 1.5, 0.5, 1.0, NAN])
    advantages = torch.tensor([[1.0, 1.0, -1.0, -1.0, 2.0, NAN]])
    result = ppo_policy_loss(logprobs, old, advantages, mask, clip_range=0.2)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8 + 2.0))
    assert logprobs.grad[0].tolist() == pytest.approx([0.0, -0.5, 1.5, 0.0, -2.0, 0.0])
    assert result.num_clipped.item() == 2
    # k3 of KL(old || new) per token: ratio - 1 - ln ratio.
    assert result.kl.item() == pytest.approx(2 * (0.5 - math.log(1.5)) + 2 * (-0.5 - math.log(0.5)), rel=1e-5)


def test_dual_clip_bounds_the_push_against_a_bad_token():
    # A = -1, ratio 4: min(-4, -1.2) = -4, raised to 3 x -1 = -3, without a gradient. At ratio 2, -2 is above -3: kept.
    # A = +1 is never dual-clipped.
    logprobs, old, mask = ratios([4.0, 2.0, 4.0])
    result = ppo_policy_loss(logprobs, old, torch.tensor([[-1.0, -1.0, 1.0]]), mask, clip_range=0.2, dual_clip=3.0)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(3.0 + 2.0 - 1.2)
    assert logprobs.grad[0].tolist() == pytest.approx([0.0, 2.0, 0.0])
    assert result.num_clipped.item() == 1


def test_importance_weights_scale_each_token():
    logprobs, old, mask = ratios([1.0, 1.0, NAN])
    weights = torch.tensor([[0.5, 2.0, NAN]])
    result = ppo_policy_loss(
        logprobs, old, torch.tensor([[1.0, -3.0, NAN]]), mask, clip_range=0.2, importance_weights=weights
    )
    result.loss.backward()
    assert result.loss.item() == pytest.approx(-(0.5 * 1.0 + 2.0 * -3.0))
    assert logprobs.grad[0].tolist() == pytest.approx([-0.5, 6.0, 0.0])


def test_a_huge_log_ratio_is_finite_in_loss_and_gradient():
    # exp(500) overflows float32.
    logprobs = torch.tensor([[0.0]], requires_grad=True)
    result = ppo_policy_loss(logprobs, torch.tensor([[-500.0]]), torch.tensor([[-1.0]]), torch.tensor([[True]]), 0.2)
    result.loss.backward()
    assert torch.isfinite(result.loss) and torch.isfinite(logprobs.grad).all() and torch.isfinite(result.kl)


def test_value_loss_takes_the_worse_of_plain_and_clipped():
    # clip 0.5, V_old = 0:  V    R   plain  moved clipped  0.5 max   gradient V - R, or 0 where the clipped one is worse
    #                       2    3    1     0.5    6.25     3.125     0
    #                       2    0    4     0.5    0.25     2.0       2
    #                     0.25   1  0.5625  0.25  0.5625   0.28125  -0.75
    values = torch.tensor([[2.0, 2.0, 0.25, NAN]], requires_grad=True)
    old, returns = torch.tensor([[0.0, 0.0, 0.0, NAN]]), torch.tensor([[3.0, 0.0, 1.0, NAN]])
    mask = torch.tensor([[True, True, True, False]])
    result = value_loss(values, old, returns, mask, clip_range=0.5)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(3.125 + 2.0 + 0.28125)
    assert values.grad[0].tolist() == pytest.approx([0.0, 2.0, -0.75, 0.0])
    assert result.num_clipped.item() == 1


def test_value_loss_without_clipping_is_half_the_squared_error():
    values = torch.tensor([[2.0, 2.0, NAN]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    result = value_loss(values, torch.zeros(1, 3), torch.tensor([[3.0, 0.0, NAN]]), mask, clip_range=None)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(0.5 * (1 + 4))
    assert values.grad[0].tolist() == [-1.0, 2.0, 0.0]
    assert result.num_clipped.item() == 0


def test_causal_lm_loss_sums_the_masked_tokens():
    logprobs = torch.tensor([[NAN, -1.0, -2.0], [-0.5, NAN, NAN]], requires_grad=True)
    mask = torch.tensor([[False, True, True], [True, False, False]])
    result = causal_lm_loss(logprobs, mask)
    result.loss.backward()
    assert (result.loss.item(), result.num_tokens.item()) == (3.5, 3)
    assert logprobs.grad.tolist() == [[0.0, -1.0, -1.0], [-1.0, 0.0, 0.0]]


def test_masked_lm_loss_is_the_cross_entropy_of_the_masked_columns():
    # Column 1 of row 0: softmax(0, ln 3) = (1/4, 3/4), label 1: loss ln(4/3), gradient (1/4, -1/4).
    # Column 0 of row 1: softmax(0, 0) = (1/2, 1/2), label 0: loss ln 2, gradient (-1/2, 1/2).
    logits = torch.tensor([[[NAN, NAN], [0.0, math.log(3)]], [[0.0, 0.0], [NAN, NAN]]], requires_grad=True)
    labels = torch.tensor([[-1, 1], [0, -1]])
    mask = torch.tensor([[False, True], [True, False]])
    result = masked_lm_loss(logits, labels, mask)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(math.log(4 / 3) + math.log(2))
    assert result.num_tokens.item() == 2
    expected = torch.tensor([[[0.0, 0.0], [0.25, -0.25]], [[-0.5, 0.5], [0.0, 0.0]]])
    torch.testing.assert_close(logits.grad, expected)


def test_masked_lm_loss_of_a_batch_with_nothing_masked_is_zero():
    logits = torch.randn(1, 2, 3, requires_grad=True)
    result = masked_lm_loss(logits, torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2, dtype=torch.bool))
    result.loss.backward()
    assert (result.loss.item(), logits.grad.abs().sum().item()) == (0.0, 0.0)


def test_bradley_terry_by_hand():
    # Margins ln 3, 0 and -ln 3: sigmoid 3/4, 1/2, 1/4. Gradient on the chosen reward: sigmoid - 1.
    chosen = torch.tensor([math.log(3), 5.0, 0.0], requires_grad=True)
    rejected = torch.tensor([0.0, 5.0, math.log(3)], requires_grad=True)
    result = bradley_terry_loss(chosen, rejected)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(math.log(4 / 3) + math.log(2) + math.log(4))
    assert chosen.grad.tolist() == pytest.approx([-0.25, -0.5, -0.75])
    assert rejected.grad.tolist() == pytest.approx([0.25, 0.5, 0.75])
    assert result.num_correct.item() == 1.5  # a tie counts one half
    assert result.chosen_rewards.item() == pytest.approx(math.log(3) + 5)


def test_bradley_terry_of_a_hopeless_pair_is_finite():
    chosen = torch.tensor([-500.0], requires_grad=True)
    loss = bradley_terry_loss(chosen, torch.tensor([500.0])).loss
    loss.backward()
    assert (loss.item(), chosen.grad.item()) == (1000.0, -1.0)


def test_dpo_by_hand():
    # beta 0.5: implicit rewards 0.5 x (-10 + 12) = 1 and 0.5 x (-20 + 18) = -1, so the margin is 2.
    # Gradient: -beta sigmoid(-2) on the chosen log-prob, +beta sigmoid(-2) on the rejected one.
    policy_chosen = torch.tensor([-10.0], requires_grad=True)
    policy_rejected = torch.tensor([-20.0], requires_grad=True)
    result = dpo_loss(policy_chosen, policy_rejected, torch.tensor([-12.0]), torch.tensor([-18.0]), beta=0.5)
    result.loss.backward()
    s = 1 / (1 + math.exp(2))
    assert result.loss.item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert policy_chosen.grad.item() == pytest.approx(-0.5 * s)
    assert policy_rejected.grad.item() == pytest.approx(0.5 * s)
    assert (result.chosen_rewards.item(), result.rejected_rewards.item()) == (1.0, -1.0)
    assert result.num_correct.item() == 1


def test_dpo_starts_at_ln_2_when_the_policy_is_the_reference():
    chosen, rejected = torch.tensor([-10.0, -3.0]), torch.tensor([-4.0, -9.0])
    assert dpo_loss(chosen, rejected, chosen, rejected, beta=0.1).loss.item() == pytest.approx(2 * math.log(2))


def test_importance_weights_are_capped_and_masked():
    # e^0.5, e^-1, e^3 capped at 2; e^400 would overflow float32.
    learner = torch.tensor([[-1.0, -2.0, -1.0, 0.0, NAN]], requires_grad=True)
    sampler = torch.tensor([[-1.5, -1.0, -4.0, -400.0, NAN]])
    mask = torch.tensor([[True, True, True, True, False]])
    weights = truncated_importance_weights(learner, sampler, mask, cap=2.0)
    assert weights[0].tolist() == pytest.approx([math.exp(0.5), math.exp(-1), 2.0, 2.0, 0.0])
    assert not weights.requires_grad
