"""How far an update has moved the policy: statistics of every objective that sees the tokens' own log-probs."""

import torch
from torch import Tensor

from plumbob.trainers.algorithms.kl import kl_estimate
from plumbob.trainers.learner.token_values import FIRST

SQUARED_GAP = f"{FIRST}squared_log_ratio"
"""The statistic of (log pi - log pi_old)^2, of which nothing but the gap of old log-probs is left before a step."""

UPDATE_KL = "update_kl"
"""The statistic of KL(pi_old || pi), the k3 estimate."""


def movement(logprobs: Tensor, old_logprobs: Tensor, action_mask: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Sums over the action tokens by their weights, [B, T] all; without gradient."""
    log_ratio, weights = (torch.where(action_mask, x, 0.0) for x in (logprobs.detach() - old_logprobs, weights))
    update_kl = kl_estimate(torch.zeros_like(log_ratio), log_ratio, "k3")
    return {UPDATE_KL: (weights * update_kl).sum(), SQUARED_GAP: (weights * log_ratio.square()).sum()}
