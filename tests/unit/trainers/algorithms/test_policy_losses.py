import math

import pytest
import torch

from plumbob.configs.settings.algorithms import Cispo, Clipped, Gspo
from plumbob.trainers.algorithms.lm_losses import causal_lm_loss, masked_lm_loss
from plumbob.trainers.algorithms.policy_losses import kl_loss, policy_loss, value_loss

NAN = float("nan")


def ratios(values):
    """Log-probs with a gradient whose ratios to old log-probs of -1 are `values`; a NaN is a token outside the mask."""
    old = torch.full((1, len(values)), -1.0)
    logprobs = (torch.tensor([values]).log() - 1.0).requires_grad_()
    mask = ~torch.tensor([values]).isnan()
    return logprobs, torch.where(mask, old, NAN), mask


def clipped_loss(logprobs, old, advantages, mask, weights=None, importance=None, dual_clip=None):
    """With a clip range of 0.2; weights of 1 where none are given, NaN outside the mask."""
    ones = torch.where(mask, 1.0, NAN)
    weights, importance = (ones if x is None else x for x in (weights, importance))
    settings = Clipped(clip_range=0.2, dual_clip=dual_clip)
    return policy_loss(settings, logprobs, old, advantages, mask, weights, importance)


def test_ppo_loss_and_gradient_by_hand():
    # clip 0.2.  A   ratio  plain  clipped  surrogate  d loss / d logprob = -A ratio, or 0 where clipped
    #            +1   1.5    1.5     1.2       1.2       0
    #            +1   0.5    0.5     0.8       0.5      -0.5
    #            -1   1.5   -1.5    -1.2      -1.5       1.5
    #            -1   0.5   -0.5    -0.8      -0.8       0
    #            +2   1.0    2.0     2.0       2.0      -2.0
    logprobs, old, mask = ratios([1.5, 0.5, 1.5, 0.5, 1.0, NAN])
    advantages = torch.tensor([[1.0, 1.0, -1.0, -1.0, 2.0, NAN]])
    result = clipped_loss(logprobs, old, advantages, mask)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8 + 2.0))
    assert logprobs.grad[0].tolist() == pytest.approx([0.0, -0.5, 1.5, 0.0, -2.0, 0.0])
    assert result.clipped.item() == 2


def test_dual_clip_bounds_the_push_against_a_bad_token():
    # A = -1, ratio 4: min(-4, -1.2) = -4, raised to 3 x -1 = -3, without a gradient. At ratio 2, -2 is above -3: kept.
    # A = +1 is never dual-clipped.
    logprobs, old, mask = ratios([4.0, 2.0, 4.0])
    result = clipped_loss(logprobs, old, torch.tensor([[-1.0, -1.0, 1.0]]), mask, dual_clip=3.0)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(3.0 + 2.0 - 1.2)
    assert logprobs.grad[0].tolist() == pytest.approx([0.0, 2.0, 0.0])
    assert result.clipped.item() == 1


def test_clip_higher_lets_a_good_token_rise_further_than_a_bad_one_may_fall():
    # 0.8 and 1.28.  A   ratio  plain  clipped  surrogate  d loss / d logprob
    #                +1   1.25   1.25    1.25     1.25     -1.25
    #                +1   1.5    1.5     1.28     1.28      0
    #                -1   0.75  -0.75   -0.8     -0.8       0
    #                -1   1.5   -1.5    -1.28    -1.5       1.5
    logprobs, old, mask = ratios([1.25, 1.5, 0.75, 1.5])
    advantages, ones = torch.tensor([[1.0, 1.0, -1.0, -1.0]]), torch.ones(1, 4)
    result = policy_loss(Clipped(clip_range_high=0.28), logprobs, old, advantages, mask, ones, ones)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(-(1.25 + 1.28 - 0.8 - 1.5))
    assert logprobs.grad[0].tolist() == pytest.approx([-1.25, 0.0, 0.0, 1.5])
    assert result.clipped.item() == 2


def test_gspo_has_one_ratio_for_a_response_whatever_its_length():
    # Ratios of 0.5, 4 and 4 have the geometric mean 2; of 0.5 and 2 the mean 1; of 0.25 that itself. Bounds 0.5, 2.5.
    # A = 1: min(2, 2) = 2; A = -3: min(-3, -3); A = -1: min(-0.25, -0.5), clipped. The mean over responses is
    # -(2 - 3 - 0.5) / 3. A token's slope is -s A / |y|: -2 / 3, then 3 / 2, then nothing.
    rows = [[0.5, 4.0, 4.0], [0.5, NAN, 2.0], [NAN, NAN, 0.25]]
    old = torch.full((3, 3), -2.0)
    mask = ~torch.tensor(rows).isnan()
    logprobs = (torch.tensor(rows).log() - 2.0).requires_grad_()
    advantages = torch.where(mask, torch.tensor([[1.0], [-3.0], [-1.0]]), NAN)
    weights = torch.where(mask, 1 / mask.sum(dim=1, keepdim=True), NAN)
    settings = Gspo(clip_range=0.5, clip_range_high=1.5)
    result = policy_loss(settings, logprobs, old, advantages, mask, weights, torch.where(mask, 1.0, NAN))
    result.loss.backward()
    assert result.loss.item() == pytest.approx(-(2 - 3 - 0.5))
    assert result.clipped.item() == pytest.approx(1)  # Of three responses.
    expected = torch.tensor([[-2 / 3, -2 / 3, -2 / 3], [1.5, 0.0, 1.5], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(logprobs.grad, expected)


def test_gspo_clips_a_response_whole():
    # Both have the ratio 1 + 0.6e-3, above 1 + 4e-4, though the first one's tokens are far apart. A good one is held at
    # 1.0004; a bad one is not.
    log_ratio = math.log(1 + 6e-4)
    logprobs = torch.tensor([[-1 + log_ratio - 0.5, -1 + log_ratio + 0.5], [-1 + log_ratio] * 2], requires_grad=True)
    old, mask, weights = torch.full((2, 2), -1.0), torch.ones(2, 2, dtype=torch.bool), torch.full((2, 2), 0.5)
    advantages = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    result = policy_loss(Gspo(), logprobs, old, advantages, mask, weights, torch.ones(2, 2))
    result.loss.backward()
    assert result.loss.item() == pytest.approx(-1.0004 + 1.0006, abs=1e-6)
    torch.testing.assert_close(logprobs.grad, torch.tensor([[0.0, 0.0], [0.5003, 0.5003]]))


def test_cispo_weighs_each_log_prob_and_leaves_none_out():
    # Held at 2.  A   ratio  weight  -weight A log pi             d loss / d logprob = -weight A
    #             +1   3       2     -2 (ln 3 - 1)                 -2
    #             -1   3       2      2 (ln 3 - 1)                  2
    #             +2   0.1     0.1   -0.2 (ln 0.1 - 1)             -0.2
    logprobs, old, mask = ratios([3.0, 3.0, 0.1, NAN])
    advantages, ones = torch.tensor([[1.0, -1.0, 2.0, NAN]]), torch.where(mask, 1.0, NAN)
    result = policy_loss(Cispo(cap=2.0), logprobs, old, advantages, mask, ones, ones)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(-0.2 * (math.log(0.1) - 1))
    assert logprobs.grad[0].tolist() == pytest.approx([-2.0, 2.0, -0.2, 0.0])
    assert result.clipped.item() == 2


@pytest.mark.parametrize("settings", [Clipped(), Gspo(), Cispo()], ids=lambda settings: settings.kind)
def test_where_an_update_begins_every_surrogate_is_the_policy_gradient(settings):
    # -w i A, weights and importance of their own.
    logprobs = torch.tensor([[-1.0, -2.0, NAN]], requires_grad=True)
    old, mask = torch.tensor([[-1.0, -2.0, NAN]]), torch.tensor([[True, True, False]])
    weights, importance = torch.tensor([[0.5, 0.25, NAN]]), torch.tensor([[1.0, 2.0, NAN]])
    result = policy_loss(settings, logprobs, old, torch.tensor([[3.0, -5.0, NAN]]), mask, weights, importance)
    result.loss.backward()
    assert logprobs.grad[0].tolist() == pytest.approx([-1.5, 2.5, 0.0])
    assert result.clipped.item() == 0


def test_loss_weights_weigh_the_loss_and_its_statistics():
    # Ratios 1.5 (clipped), 1 and 0.5; weights 0.25, 0.5 and 2.
    logprobs, old, mask = ratios([1.5, 1.0, 0.5, NAN])
    weights = torch.tensor([[0.25, 0.5, 2.0, NAN]])
    result = clipped_loss(logprobs, old, torch.tensor([[1.0, 1.0, 1.0, NAN]]), mask, weights)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(-(0.25 * 1.2 + 0.5 * 1.0 + 2.0 * 0.5))
    assert logprobs.grad[0].tolist() == pytest.approx([0.0, -0.5, -1.0, 0.0])
    assert result.clipped.item() == pytest.approx(0.25)


def test_importance_weights_scale_each_token_of_the_loss_alone():
    logprobs, old, mask = ratios([1.0, 1.5, NAN])
    importance = torch.tensor([[0.5, 2.0, NAN]])
    result = clipped_loss(logprobs, old, torch.tensor([[1.0, -3.0, NAN]]), mask, importance=importance)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(-(0.5 * 1.0 + 2.0 * -4.5))
    assert logprobs.grad[0].tolist() == pytest.approx([-0.5, 9.0, 0.0])


def test_a_huge_log_ratio_is_finite_in_loss_and_gradient():
    # exp(500) overflows float32.
    logprobs = torch.tensor([[0.0]], requires_grad=True)
    result = clipped_loss(logprobs, torch.tensor([[-500.0]]), torch.tensor([[-1.0]]), torch.tensor([[True]]))
    result.loss.backward()
    assert torch.isfinite(result.loss) and torch.isfinite(logprobs.grad).all()


@pytest.mark.parametrize("kind", ["k2", "k3"])
def test_kl_in_the_loss_and_its_gradient_by_hand(kind):
    # u = ln 2 and -ln 2. k2 = u^2 / 2, gradient u. k3 = exp(-u) - 1 + u = ln 2 - 1/2 and 1 - ln 2, gradient
    # 1 - exp(-u) = 1/2 and -1. Weights 1/2 and 1, importance 1 and 3.
    logprobs = torch.tensor([[-1.0, -2.0, NAN]], requires_grad=True)
    u = math.log(2)
    reference = torch.tensor([[-1.0 - u, -2.0 + u, NAN]])
    mask = torch.tensor([[True, True, False]])
    found = kl_loss(logprobs, reference, mask, torch.tensor([[0.5, 1.0, NAN]]), torch.tensor([[1.0, 3.0, NAN]]), kind)
    found.backward()
    terms = {"k2": [u * u / 2, u * u / 2], "k3": [u - 0.5, 1 - u]}[kind]
    slopes = {"k2": [u, -u], "k3": [0.5, -1.0]}[kind]
    assert found.item() == pytest.approx(0.5 * terms[0] + 3 * terms[1], rel=1e-5)
    assert logprobs.grad[0].tolist() == pytest.approx([0.5 * slopes[0], 3 * slopes[1], 0.0], rel=1e-5)


def test_value_loss_takes_the_worse_of_plain_and_clipped():
    # clip 0.5, V_old = 0:  V    R   plain  moved clipped  0.5 max   gradient V - R, or 0 where the clipped one is worse
    #                       2    3    1     0.5    6.25     3.125     0
    #                       2    0    4     0.5    0.25     2.0       2
    #                     0.25   1  0.5625  0.25  0.5625   0.28125  -0.75
    # Weights 0.5, 1 and 2.
    values = torch.tensor([[2.0, 2.0, 0.25, NAN]], requires_grad=True)
    old, returns = torch.tensor([[0.0, 0.0, 0.0, NAN]]), torch.tensor([[3.0, 0.0, 1.0, NAN]])
    mask = torch.tensor([[True, True, True, False]])
    result = value_loss(values, old, returns, mask, torch.tensor([[0.5, 1.0, 2.0, NAN]]), clip_range=0.5)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(0.5 * 3.125 + 2.0 + 2 * 0.28125)
    assert values.grad[0].tolist() == pytest.approx([0.0, 2.0, -1.5, 0.0])
    assert result.clipped.item() == 0.5


def test_value_loss_without_clipping_is_half_the_squared_error():
    values = torch.tensor([[2.0, 2.0, NAN]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    returns = torch.tensor([[3.0, 0.0, NAN]])
    result = value_loss(values, torch.zeros(1, 3), returns, mask, torch.tensor([[1.0, 1.0, NAN]]), clip_range=None)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(0.5 * (1 + 4))
    assert values.grad[0].tolist() == [-1.0, 2.0, 0.0]
    assert result.clipped.item() == 0


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
