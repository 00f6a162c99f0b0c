"""KL divergence from the reference: per-token estimates, and the controller of its coefficient."""

import math
from typing import Literal, assert_never

import torch
from torch import Tensor

from plumbob.configs.settings.algorithms import AdaptiveKl, FixedKl

KlKind = Literal["k1", "k2", "k3"]

MAX_LOG_RATIO = 20.0
"""Bound on a log-ratio before it is exponentiated: e^20 is far outside any update, and float32 holds it."""


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, kind: KlKind) -> Tensor:
    """Estimate of KL(pi || pi_ref) at each token sampled from pi (Schulman, http://joschu.net/blog/kl-approx.html).

    With u = log pi - log pi_ref: k1 = u is unbiased, and the one to put into a reward; k2 = u^2 / 2 is biased, with the
    right gradient in a one-token loss; k3 = exp(-u) - 1 + u is unbiased and never negative.

    Args:
        logprobs: of the sampled tokens under pi, any shape.
        ref_logprobs: the same under pi_ref.
    """
    log_ratio = logprobs - ref_logprobs
    match kind:
        case "k1":
            return log_ratio
        case "k2":
            return log_ratio.square() / 2
        case "k3":
            # Behind the bound a straight line continues, so that the gradient keeps its sign.
            beyond = torch.relu(-log_ratio - MAX_LOG_RATIO)
            return torch.expm1((-log_ratio).clamp(max=MAX_LOG_RATIO)) + math.exp(MAX_LOG_RATIO) * beyond + log_ratio
        case _:
            assert_never(kind)


def initial_coefficient(config: FixedKl | AdaptiveKl) -> float:
    """The coefficient of the first step: all the state that the controller has."""
    return config.coefficient


def next_coefficient(config: FixedKl | AdaptiveKl, coefficient: float, measured_kl: float, num_samples: int) -> float:
    """The coefficient of the next step (Ziegler et al. 2019, arXiv 1909.08593, section 2.2).

    Args:
        coefficient: the one that the measured step was sampled and scored with.
        measured_kl: mean KL of a whole response, in nats.
        num_samples: responses that it was measured on. More than a horizon's count as one horizon's: the factor stays
            within 0.8 and 1.2, and the coefficient above 0.
    """
    match config:
        case FixedKl():
            return config.coefficient
        case AdaptiveKl():
            error = min(max(measured_kl / config.target - 1, -0.2), 0.2)
            return coefficient * (1 + error * min(num_samples / config.horizon, 1.0))
        case _:
            assert_never(config)
