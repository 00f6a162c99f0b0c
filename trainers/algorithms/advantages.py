"""Advantages: what each token is better than expected. Tensors are [B, T], groups int64 [B]; float32 results.

`estimate` takes one estimator of `configs.settings.algorithms`. The critic's looks at each token's state; the others
compare whole responses, with one another in their group or over the batch, and need none. Rows without an action token
belong to no group and to no statistic. Where a batch lies on several ranks, each gives the rows that are its own.
"""

from typing import NamedTuple, assert_never

import torch
from torch import Tensor

from plumbob.configs.settings.algorithms import (
    BestOfN,
    Distillation,
    DrGrpo,
    Estimator,
    Gae,
    Grpo,
    OnlineDpo,
    ReinforcePlusPlus,
    ReinforcePlusPlusBaseline,
    Rloo,
)
from plumbob.trainers.algorithms.whole_batch import ONE_RANK, WholeBatch, masked_mean, masked_variance

TIE = 1e-5
"""Rewards of a group that differ by less than this share of the largest (or of 1) are the same but for rounding."""


class Estimate(NamedTuple):
    """Attributes: [B, T], 0 outside the action mask.

    advantages: what the policy's log-probs are weighted with.
    returns: what the critic is to predict; None where there is none.
    """

    advantages: Tensor
    returns: Tensor | None


def estimate(
    estimator: Estimator,
    rewards: Tensor,
    values: Tensor | None,
    action_mask: Tensor,
    groups: Tensor,
    batch: WholeBatch = ONE_RANK,
) -> Estimate:
    """The advantages of a whole batch by the estimator chosen.

    Args:
        rewards: reward of each token, the KL penalty included where it is in the reward; of `Distillation`, log teacher
            - log policy. Its advantages have no baseline: at the teacher they are all 0, whatever is sampled.
        values: of the critic, which `Gae` alone has.
        groups: rows with the same number response the same prompt.
        batch: that these rows are of.
    """
    match estimator:
        case Gae():
            assert values is not None, "generalised advantage estimation has a critic"
            advantages, returns = gae(rewards, values, action_mask, estimator.gamma, estimator.lam)
            return Estimate(whiten(advantages, action_mask, batch) if estimator.whiten else advantages, returns)
        case ReinforcePlusPlus():
            return Estimate(whiten(returns_to_go(rewards, action_mask, estimator.gamma), action_mask, batch), None)
        case ReinforcePlusPlusBaseline():
            return Estimate(group_baseline(rewards, action_mask, groups, batch), None)
        case Rloo():
            return Estimate(leave_one_out(rewards, action_mask, groups, batch), None)
        case Grpo():
            return Estimate(group_standardised(rewards, action_mask, groups, estimator.std_eps, batch), None)
        case DrGrpo():
            return Estimate(group_centred(rewards, action_mask, groups, batch), None)
        case BestOfN():
            return Estimate(best_and_worst(rewards, action_mask, groups, batch).clamp(min=0), None)
        case OnlineDpo():
            return Estimate(best_and_worst(rewards, action_mask, groups, batch), None)
        case Distillation():
            return Estimate(returns_to_go(rewards, action_mask, estimator.gamma), None)
        case _:
            assert_never(estimator)


# ------------------------------------------------------------------------------------------------------- token by token


def gae(rewards: Tensor, values: Tensor, action_mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns (Schulman et al. 2015, arXiv 1506.02438, equation 16).

    delta_t = r_t + gamma V_t' - V_t and A_t = delta_t + gamma lam A_t', where t' is the *next token that the policy
    wrote*: text in between (a tool's response) neither discounts nor resets. After a row's last action, V and A are 0.

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


def returns_to_go(rewards: Tensor, action_mask: Tensor, gamma: float) -> Tensor:
    """G_t = r_t + gamma G_t': what is still to come (Hu 2025, arXiv 2501.03262). `gae` of a critic that says 0."""
    return gae(rewards, torch.zeros_like(rewards), action_mask, gamma, 1.0)[0]


# ------------------------------------------------------------------------------------------------------ whole responses


def group_centred(rewards: Tensor, action_mask: Tensor, groups: Tensor, batch: WholeBatch = ONE_RANK) -> Tensor:
    """A_i = R_i - mean(R of the group) on every token of response i (Dr. GRPO, Liu et al. 2025, arXiv 2503.20783)."""
    return _on_tokens(_centred(rewards, action_mask, groups, batch).centred, action_mask, batch)


def leave_one_out(rewards: Tensor, action_mask: Tensor, groups: Tensor, batch: WholeBatch = ONE_RANK) -> Tensor:
    """A_i = R_i - mean(R of the group's others) = n/(n-1) (R_i - mean) (RLOO, Ahmadian et al. 2024, arXiv 2402.14740).

    A response that is alone in its group has nothing to be compared with: 0.
    """
    group = _centred(rewards, action_mask, groups, batch)
    return _on_tokens(group.centred * group.size / (group.size - 1).clamp(min=1), action_mask, batch)


def group_standardised(
    rewards: Tensor, action_mask: Tensor, groups: Tensor, eps: float, batch: WholeBatch = ONE_RANK
) -> Tensor:
    """A_i = (R_i - mean) / (std + eps) of the group (GRPO, Shao et al. 2024, arXiv 2402.03300, section 4.1.2).

    The standard deviation is the sample's, of n - 1: the paper does not say, and published code takes this one.
    """
    group = _centred(rewards, action_mask, groups, batch)
    squares = _sums(group.centred.square(), group.numbers)
    std = (squares / (group.size - 1).clamp(min=1)).sqrt()
    return _on_tokens(group.centred / (std + eps), action_mask, batch)


def standardised_parts(
    values: Tensor, weights: Tensor, has_action: Tensor, groups: Tensor, eps: float = 1e-4
) -> Tensor:
    """w_k (v_k - mean) / (std + eps) of the group, float32 [K, B], whose sum over the parts is what a response earns.

    Each part of a reward counts by its weight alone, however far its values lie apart (GDPO, Liu et al. 2026, arXiv
    2601.05242).

    Args:
        values: of each part, [K, B].
        weights: [K].
        has_action: bool [B].
    """
    standardised = [group_standardised(part[:, None], has_action[:, None], groups, eps)[:, 0] for part in values]
    return weights[:, None] * torch.stack(standardised)


def group_baseline(
    rewards: Tensor, action_mask: Tensor, groups: Tensor, batch: WholeBatch = ONE_RANK, eps: float = 1e-8
) -> Tensor:
    """A_i = (R_i - mean of the group) / std (REINFORCE++ with group baseline, Hu 2025, arXiv 2501.03262).

    The standard deviation is over all action tokens of the batch, each of which carries its response's R_i - mean. No
    second mean is taken off: it would be a baseline that prefers short responses or long ones.
    """
    centred = group_centred(rewards, action_mask, groups, batch)
    return centred * torch.rsqrt(masked_variance(centred, action_mask, batch) + eps)


def best_and_worst(rewards: Tensor, action_mask: Tensor, groups: Tensor, batch: WholeBatch = ONE_RANK) -> Tensor:
    """1 on every token of the response with the highest return of its group, -1 on those of the lowest, else 0.

    The chosen and the rejected response of online DPO (Guo et al. 2024, arXiv 2402.04792); the best alone is RAFT's
    (Dong et al. 2023, arXiv 2304.06767). Of returns that are the same but for rounding the first in the group counts:
    a group's responses are drawn alike, so that none is preferred. A group of equal returns has neither.
    """
    totals, has_action, groups = _of_all(rewards, action_mask, groups, batch)
    high, low, rounding = _range(totals, has_action, groups)
    differs = has_spread(totals, has_action, groups)
    is_high = differs & (totals >= high - rounding)
    is_low = differs & (totals <= low + rounding) & ~is_high
    return _on_tokens(_first(is_high, groups).double() - _first(is_low, groups).double(), action_mask, batch)


def has_spread(totals: Tensor, has_action: Tensor, groups: Tensor) -> Tensor:
    """bool [B]: whether the rewards [B] of the row's group differ by more than rounding; NaN counts as differing."""
    high, low, rounding = _range(totals.double(), has_action, groups)
    return has_action & ~(high - low <= rounding)


class _Range(NamedTuple):
    """Attributes: float64 [B], of each row's group: its highest and lowest reward, and what is rounding between two."""

    high: Tensor
    low: Tensor
    rounding: Tensor


def _range(totals: Tensor, has_action: Tensor, groups: Tensor) -> _Range:
    high = _extremes(torch.where(has_action, totals, -torch.inf), groups, "amax")
    low = _extremes(torch.where(has_action, totals, torch.inf), groups, "amin")
    return _Range(high, low, TIE * torch.maximum(high.abs(), low.abs()).clamp(min=1))


def _first(flags: Tensor, groups: Tensor) -> Tensor:
    """bool [B]: the first row of each group that has the flag [B]."""
    rows = torch.arange(len(flags), device=flags.device)
    return flags & (rows == _extremes(torch.where(flags, rows, len(flags)), groups, "amin"))


class _Group(NamedTuple):
    """Of all rows of the batch.

    Attributes:
        centred: R - mean of the group, 0 for rows without an action, float64 [B].
        size: the group's responses, float64 [B].
        numbers: of the groups, int64 [B].
    """

    centred: Tensor
    size: Tensor
    numbers: Tensor


def _of_all(rewards: Tensor, action_mask: Tensor, groups: Tensor, batch: WholeBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Of all rows of the batch: whole returns, float64 [B], which have an action, bool [B], and their groups."""
    totals = torch.where(action_mask, rewards.double(), 0.0).sum(dim=1)
    found = batch.gather(torch.stack([totals, action_mask.any(dim=1).double(), groups.double()], dim=1))
    return found[:, 0], found[:, 1] > 0, found[:, 2].long()


def _centred(rewards: Tensor, action_mask: Tensor, groups: Tensor, batch: WholeBatch) -> _Group:
    """Whole returns less their group's mean; exactly 0 where they are the same but for rounding."""
    totals, has_action, groups = _of_all(rewards, action_mask, groups, batch)
    size = _sums(has_action.double(), groups)
    mean = _sums(totals, groups) / size.clamp(min=1)
    return _Group(torch.where(has_spread(totals, has_action, groups), totals - mean, 0.0), size, groups)


def _sums(x: Tensor, groups: Tensor) -> Tensor:
    """Each row's group's sum of `x`, [B]."""
    members = torch.unique(groups, return_inverse=True)[1]
    return torch.zeros_like(x).index_add(0, members, x)[members]


def _extremes(x: Tensor, groups: Tensor, reduce: str) -> Tensor:
    """Each row's group's largest ("amax") or smallest ("amin") `x`, [B]."""
    members = torch.unique(groups, return_inverse=True)[1]
    return torch.zeros_like(x).scatter_reduce(0, members, x, reduce, include_self=False)[members]


def _on_tokens(advantages: Tensor, action_mask: Tensor, batch: WholeBatch) -> Tensor:
    """Of all responses' advantages, [B], those of this rank's, on each of their action tokens, float32 [b, T]."""
    return torch.where(action_mask, batch.own(advantages).float()[:, None], 0.0)


# --------------------------------------------------------------------------------------------------------- the batch


def whiten(x: Tensor, mask: Tensor, batch: WholeBatch = ONE_RANK, eps: float = 1e-8) -> Tensor:
    """(x - mean) / sqrt(variance + eps) over all True cells of the batch, 0 elsewhere.

    The variance is divided by the number of cells, not by one less, so that one cell alone gives 0. Cells that are all
    equal carry no signal and become 0.
    """
    centred = torch.where(mask, x.float() - masked_mean(x, mask, batch), 0.0)
    return centred * torch.rsqrt(masked_variance(x, mask, batch) + eps)
