"""Losses, each a SUM over tokens or rows with statistics that are sums too.

The caller divides by the count over the whole optimizer step and all ranks, so that a gradient depends neither on
micro-batches nor on how many learners there are. Token tensors are [B, T]; where a mask is False nothing is read.
Statistics carry no gradient.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from trainers.kl import MAX_LOG_RATIO, kl_estimate


class PolicyLoss(NamedTuple):
    """Attributes: all scalars, sums over the action tokens.

    loss: the clipped surrogate, to be minimised.
    num_clipped: tokens whose ratio is clipped, so that they push no further.
    kl: KL(pi_old || pi), the k3 estimate: how far the update has moved.
    """

    loss: Tensor
    num_clipped: Tensor
    kl: Tensor


def ppo_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    action_mask: Tensor,
    clip_range: float,
    dual_clip: float | None = None,
    importance_weights: Tensor | None = None,
) -> PolicyLoss:
    """-w min(rho A, clip(rho, 1 - c, 1 + c) A), rho = pi / pi_old (Schulman et al. 2017, arXiv 1707.06347, equation 7).

    Args:
        logprobs: of the sampled tokens under the policy being trained; the only tensor with a gradient.
        old_logprobs: the same as the update began.
        dual_clip: where A < 0, the surrogate is at least dual_clip * A (Ye et al. 2020, arXiv 1912.09729).
        importance_weights: w, the correction for tokens that another policy sampled; None is 1.
    """
    log_ratio = torch.where(action_mask, logprobs - old_logprobs, 0.0)
    ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    advantages = torch.where(action_mask, advantages, 0.0)
    plain = ratio * advantages
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range) * advantages
    surrogate = torch.minimum(plain, clipped)
    if dual_clip is not None:
        surrogate = torch.where(advantages < 0, torch.maximum(surrogate, dual_clip * advantages), surrogate)
    if importance_weights is not None:
        surrogate = surrogate * torch.where(action_mask, importance_weights, 0.0)
    return PolicyLoss(
        loss=-surrogate.sum(),
        num_clipped=(clipped < plain).sum().detach(),
        kl=kl_estimate(torch.zeros_like(log_ratio), log_ratio.detach(), "k3").sum(),
    )


class ValueLoss(NamedTuple):
    """Attributes: scalars, sums over the action tokens.

    loss: half the squared error.
    num_clipped: tokens whose clipped error is the larger one, so that they push no further.
    """

    loss: Tensor
    num_clipped: Tensor


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, action_mask: Tensor, clip_range: float | None
) -> ValueLoss:
    """0.5 max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2); the plain square where `clip_range` is None."""
    values, old_values, returns = (torch.where(action_mask, x, 0.0) for x in (values, old_values, returns))
    plain = (values - returns).square()
    if clip_range is None:
        return ValueLoss(0.5 * plain.sum(), torch.zeros_like(action_mask).sum())
    moved = old_values + (values - old_values).clamp(-clip_range, clip_range)
    clipped = (moved - returns).square()
    return ValueLoss(0.5 * torch.maximum(plain, clipped).sum(), (clipped > plain).sum().detach())


class TokenLoss(NamedTuple):
    """Attributes: scalars. loss: summed negative log-likelihood in nats. num_tokens: what it is summed over."""

    loss: Tensor
    num_tokens: Tensor


def causal_lm_loss(logprobs: Tensor, mask: Tensor) -> TokenLoss:
    """Negative log-likelihood of the masked tokens, from their log-probs [B, T]."""
    return TokenLoss(-torch.where(mask, logprobs, 0.0).sum(), mask.sum())


def masked_lm_loss(logits: Tensor, labels: Tensor, mask: Tensor) -> TokenLoss:
    """Cross-entropy of the words to be guessed: logits [B, T, V] at their own columns, labels int64 [B, T]."""
    return TokenLoss(F.cross_entropy(logits[mask].float(), labels[mask], reduction="sum"), mask.sum())


class PairLoss(NamedTuple):
    """Attributes: scalars, sums over the pairs.

    loss: negative log-likelihood of the preferences.
    num_correct: pairs whose chosen answer has the higher reward; a tie counts one half.
    chosen_rewards, rejected_rewards: the rewards, implicit ones in DPO.
    """

    loss: Tensor
    num_correct: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor


def bradley_terry_loss(chosen_rewards: Tensor, rejected_rewards: Tensor) -> PairLoss:
    """-log sigmoid(r(chosen) - r(rejected)) (Bradley and Terry 1952); rewards [B] of the same prompts' answers."""
    margins = (chosen_rewards - rejected_rewards).float()
    return PairLoss(
        loss=-F.logsigmoid(margins).sum(),
        num_correct=((margins.detach().sign() + 1) / 2).sum(),
        chosen_rewards=chosen_rewards.detach().float().sum(),
        rejected_rewards=rejected_rewards.detach().float().sum(),
    )


def dpo_loss(
    policy_chosen: Tensor, policy_rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> PairLoss:
    """Bradley-Terry on implicit rewards beta log(pi / pi_ref) (Rafailov et al. 2023, arXiv 2305.18290, equation 7).

    Args:
        policy_chosen: log-probability of each whole answer, summed over its tokens, [B]; so are the other three.
    """
    return bradley_terry_loss(beta * (policy_chosen - ref_chosen), beta * (policy_rejected - ref_rejected))


def truncated_importance_weights(
    learner_logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor, cap: float
) -> Tensor:
    """min(pi_learner / pi_sampler, cap) per token, 0 elsewhere (truncated importance sampling, Ionides 2008).

    Corrects the update for a sampler whose arithmetic, or whose version, differs from the learner's. No gradient.
    """
    log_ratio = torch.where(mask, learner_logprobs - sampler_logprobs, 0.0).detach()
    weights = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp().clamp(max=cap)
    return torch.where(mask, weights, 0.0)
