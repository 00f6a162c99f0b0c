"""Advantages: generalised advantage estimation, and whitening. All tensors are [B, T]; float32 results."""

import torch
from torch import Tensor


def gae(rewards: Tensor, values: Tensor, action_mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns (Schulman et al. 2015, arXiv 1506.02438, equation 16).

    delta_t = r_t + gamma V_t' - V_t and A_t = delta_t + gamma lam A_t', where t' is the *next token that the policy
    wrote*: text in between (a tool's answer) neither discounts nor resets. After a row's last action, V and A are 0.

    Args:
        rewards: reward of each token; columns outside the mask are not read.
        values: V of the state before each token; columns outside the mask are not read.
        action_mask: bool, True on the tokens that the policy wrote.

    Returns:
        advantages, and returns = advantages + values; both 0 outside the mask.
    """
    rewards = torch.where(action_mask, rewards.float(), 0.0)
    values = torch.where(action_mask, values.float(), 0.0)
    advantages = torch.zeros_like(values)
    next_value = torch.zeros_like(values[:, 0])
    next_advantage = torch.zeros_like(next_value)
    for t in reversed(range(values.shape[1])):
        is_action = action_mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = torch.where(is_action, delta + gamma * lam * next_advantage, next_advantage)
        next_value = torch.where(is_action, values[:, t], next_value)
        advantages[:, t] = torch.where(is_action, next_advantage, 0.0)
    return advantages, advantages + values


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the True cells of `mask`; 0 where there are none."""
    return torch.where(mask, x.float(), 0.0).sum() / mask.sum().clamp(min=1)


def masked_variance(x: Tensor, mask: Tensor) -> Tensor:
    """Variance over the True cells of `mask`, divided by their number; 0 where there are none."""
    return masked_mean((x - masked_mean(x, mask)).square(), mask)


def whiten(x: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """(x - mean) / sqrt(variance + eps) over all True cells of the batch, 0 elsewhere.

    The variance is divided by the number of cells, not by one less, so that one cell alone gives 0. Cells that are all
    equal carry no signal and become 0.
    """
    centred = torch.where(mask, x.float() - masked_mean(x, mask), 0.0)
    return centred * torch.rsqrt(masked_variance(x, mask) + eps)
