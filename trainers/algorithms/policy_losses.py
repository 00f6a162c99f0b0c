"""Policy surrogates (PPO's, GSPO, CISPO), the KL's and the critic's loss, each a SUM over tokens, statistics too.

The caller divides by the count over the whole optimizer step and all ranks, so that a gradient depends neither on
micro-batches nor on how many learners there are. Token tensors are [B, T]; where a mask is False nothing is read.
Statistics carry no gradient.
"""

from typing import Literal, NamedTuple, assert_never

import torch
from torch import Tensor

from plumbob.configs.settings.algorithms import Cispo, Clipped, Gspo, PolicyLoss
from plumbob.trainers.algorithms.kl import MAX_LOG_RATIO, kl_estimate


class PolicyLossSums(NamedTuple):
    """Attributes: scalars are sums over the action tokens by their loss weights; only `loss` has a gradient.

    loss: the surrogate, to be minimised, a scalar.
    clipped: a scalar, 1 for each token whose ratio is clipped, so that it pushes no further; of `Cispo`, whose weight
        is held at the cap. Tokens that `dual_clip` holds are not counted.
    ratios: pi / pi_old of each token, of `Gspo` of its response, [B, T].
    is_clipped: what `clipped` counts, bool [B, T].
    """

    loss: Tensor
    clipped: Tensor
    ratios: Tensor
    is_clipped: Tensor


def policy_loss(
    settings: PolicyLoss,
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    action_mask: Tensor,
    loss_weights: Tensor,
    importance_weights: Tensor,
) -> PolicyLossSums:
    """The surrogate chosen.

    Args:
        logprobs: of the sampled tokens under the policy being trained; the only tensor with a gradient.
        old_logprobs: the same as the update began.
        loss_weights: w, what each token weighs in the mean.
        importance_weights: i, the correction for tokens that another policy sampled.
    """
    log_ratio = torch.where(action_mask, logprobs - old_logprobs, 0.0)
    advantages, weights, importance = (
        torch.where(action_mask, x, 0.0) for x in (advantages, loss_weights, importance_weights)
    )
    match settings:
        case Clipped():
            ratio = _exp(log_ratio)
            surrogate, is_clipped = clipped_surrogate(
                ratio, advantages, settings.clip_range, settings.high, settings.dual_clip
            )
        case Gspo():
            ratio = response_ratio(log_ratio, action_mask)
            surrogate, is_clipped = clipped_surrogate(ratio, advantages, settings.clip_range, settings.clip_range_high)
        case Cispo():
            ratio, own = _exp(log_ratio), torch.where(action_mask, logprobs, 0.0)
            surrogate, is_clipped = weighted_logprobs(ratio, own, advantages, settings.cap)
        case _:
            assert_never(settings)
    return PolicyLossSums(
        loss=-(weights * importance * surrogate).sum(),
        clipped=(weights * is_clipped).sum().detach(),
        ratios=ratio.detach(),
        is_clipped=is_clipped,
    )


class Surrogate(NamedTuple):
    """Attributes: [B, T]. value: what is maximised, of each token. is_clipped: bool, whether its ratio was clipped."""

    value: Tensor
    is_clipped: Tensor


def clipped_surrogate(
    ratio: Tensor, advantages: Tensor, low: float, high: float, dual_clip: float | None = None
) -> Surrogate:
    """min(rho A, clip(rho, 1 - low, 1 + high) A) (Schulman et al. 2017, arXiv 1707.06347, equation 7).

    With `high` above `low` it is clip-higher (DAPO, Yu et al. 2025, arXiv 2503.14476, section 3.1).

    Args:
        ratio: rho, of each token, [B, T].
        dual_clip: where A < 0, the surrogate is at least dual_clip * A (Ye et al. 2020, arXiv 1912.09729).
    """
    plain = ratio * advantages
    clipped = ratio.clamp(1 - low, 1 + high) * advantages
    surrogate = torch.minimum(plain, clipped)
    if dual_clip is not None:
        surrogate = torch.where(advantages < 0, torch.maximum(surrogate, dual_clip * advantages), surrogate)
    return Surrogate(surrogate, clipped < plain)


def response_ratio(log_ratio: Tensor, action_mask: Tensor) -> Tensor:
    """s = (pi(y) / pi_old(y))^(1/|y|) at each token, [B, T] (GSPO, Zheng et al. 2025, arXiv 2507.18071, section 4.1).

    In the token-wise form, s_t = sg(s) pi_t / sg(pi_t) with sg for no gradient (section 4.3): each token has the value
    of the response's ratio, and the gradient of its own log-prob. With the weights 1/|y| of a mean over responses and
    one advantage for a response, the sum over its tokens is the response's own surrogate, min(s A, clip(s) A), in value
    and gradient (equations 11 and 18); with any other weights it is not GSPO.

    Args:
        log_ratio: log pi - log pi_old, 0 outside the mask.
    """
    num_tokens = action_mask.sum(dim=1, keepdim=True).clamp(min=1)
    mean = (log_ratio.sum(dim=1, keepdim=True) / num_tokens).detach()
    return _exp(mean + log_ratio - log_ratio.detach())


def weighted_logprobs(ratio: Tensor, logprobs: Tensor, advantages: Tensor, cap: float) -> Surrogate:
    """sg(min(rho, cap)) A log pi, sg for no gradient (CISPO, MiniMax 2025, arXiv 2506.13585, equations 4 and 5).

    The paper leaves the weight unbounded below, and so does this.
    """
    weight = ratio.detach()
    return Surrogate(weight.clamp(max=cap) * advantages * logprobs, weight > cap)


def _exp(log_ratio: Tensor) -> Tensor:
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def kl_loss(
    logprobs: Tensor,
    ref_logprobs: Tensor,
    action_mask: Tensor,
    loss_weights: Tensor,
    importance_weights: Tensor,
    kind: Literal["k2", "k3"],
) -> Tensor:
    """w i k(log pi - log pi_ref), summed: KL from the reference paid for in the loss (Shao et al. 2024, 2402.03300).

    With u = log pi - log pi_ref the gradient at a token's log-prob is w i u for k2 and w i (1 - exp(-u)) for k3,
    with exp(20) at most: it pays for this token's divergence and leaves out that of the tokens that follow from it.

    Args:
        logprobs: of the sampled tokens under the policy being trained; the only tensor with a gradient.
        loss_weights, importance_weights: w and i, those of the policy's loss.
    """
    logprobs, ref_logprobs, weights, importance = (
        torch.where(action_mask, x, 0.0) for x in (logprobs, ref_logprobs, loss_weights, importance_weights)
    )
    return (weights * importance * kl_estimate(logprobs, ref_logprobs, kind)).sum()


class ValueLoss(NamedTuple):
    """Attributes: scalars, sums over the action tokens by their loss weights.

    loss: half the squared error.
    clipped: 1 for each token whose clipped error is the larger one, so that it pushes no further.
    """

    loss: Tensor
    clipped: Tensor


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    action_mask: Tensor,
    loss_weights: Tensor,
    clip_range: float | None,
) -> ValueLoss:
    """0.5 w max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2); the plain square where `clip_range` is None.

    PPO's first code clips so, not its paper (Engstrom et al. 2020, "Implementation matters", arXiv 2005.12729).
    """
    values, old_values, returns, weights = (
        torch.where(action_mask, x, 0.0) for x in (values, old_values, returns, loss_weights)
    )
    plain = (values - returns).square()
    if clip_range is None:
        return ValueLoss(0.5 * (weights * plain).sum(), torch.zeros_like(weights).sum())
    moved = old_values + (values - old_values).clamp(-clip_range, clip_range)
    clipped = (moved - returns).square()
    worse = torch.maximum(plain, clipped)
    return ValueLoss(0.5 * (weights * worse).sum(), (weights * (clipped > plain)).sum().detach())
