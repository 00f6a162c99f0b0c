"""Importance weights: the correction for responses that another arithmetic, or an older version, sampled.

Tensors are [B, T]; weights are 0 outside the mask, where nothing is read, and carry no gradient.
"""

from typing import NamedTuple, assert_never

import torch
from torch import Tensor

from plumbob.configs.settings.algorithms import Importance, MaskedImportance, NoImportance, TruncatedImportance
from plumbob.trainers.algorithms.kl import MAX_LOG_RATIO


class ImportanceWeights(NamedTuple):
    """Attributes: [B, T].

    weights: float32, what each token of the loss is multiplied with.
    is_cut: bool, True where the ratio pi_learner / pi_sampler was out of bounds.
    """

    weights: Tensor
    is_cut: Tensor


def importance_weights(
    settings: Importance, learner_logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor
) -> ImportanceWeights:
    """The weights by the correction chosen."""
    match settings:
        case TruncatedImportance():
            return truncated(learner_logprobs, sampler_logprobs, mask, settings.cap)
        case MaskedImportance():
            return masked(learner_logprobs, sampler_logprobs, mask, settings.low, settings.high)
        case NoImportance():
            return ImportanceWeights(mask.float(), torch.zeros_like(mask))
        case _:
            assert_never(settings)


def truncated(learner_logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor, cap: float) -> ImportanceWeights:
    """min(pi_learner / pi_sampler, cap) (truncated importance sampling, Ionides 2008)."""
    ratios = _ratios(learner_logprobs, sampler_logprobs, mask)
    return ImportanceWeights(torch.where(mask, ratios.clamp(max=cap), 0.0), mask & (ratios > cap))


def masked(
    learner_logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor, low: float, high: float
) -> ImportanceWeights:
    """pi_learner / pi_sampler within [low, high], 0 out of it (IcePop, Ling Team 2025, arXiv 2510.18855)."""
    ratios = _ratios(learner_logprobs, sampler_logprobs, mask)
    is_within = (ratios >= low) & (ratios <= high)
    return ImportanceWeights(torch.where(mask & is_within, ratios, 0.0), mask & ~is_within)


def _ratios(learner_logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor) -> Tensor:
    log_ratio = torch.where(mask, (learner_logprobs - sampler_logprobs).float(), 0.0).detach()
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
