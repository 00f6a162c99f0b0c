"""What a reward model learns by, each a SUM over rows: the caller divides by the rows of the whole optimizer step."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


def bradley_terry_loss(
    chosen_rewards: Tensor, rejected_rewards: Tensor, margins: Tensor | None = None, flip_rate: float = 0.0
) -> Tensor:
    """-log((1 - e) sigmoid(d - m) + e sigmoid(-d - m)), d = r(chosen) - r(rejected) (Bradley and Terry 1952).

    The negative log-likelihood of labels of which a share e is wrong: at any e its expected minimum has the differences
    of who judges rightly. Christiano et al. 2017 (arXiv 1706.03741, section 2.2.3) take e = 0.05. The second sigmoid is
    the first for the pair turned round, as it should stand where the label is wrong.

    Args:
        chosen_rewards: [B]; so are the next two.
        margins: m, at least 0: by how much the better response is to win (Touvron et al. 2023, arXiv 2307.09288,
            equation 2); None is 0.
        flip_rate: e, below 0.5.
    """
    differences = (chosen_rewards - rejected_rewards).float()
    margins = torch.zeros_like(differences) if margins is None else margins
    right = F.logsigmoid(differences - margins)
    if not flip_rate:
        return -right.sum()
    wrong = F.logsigmoid(-differences - margins)
    return -torch.logaddexp(math.log(1 - flip_rate) + right, math.log(flip_rate) + wrong).sum()


def plackett_luce_loss(rewards: Tensor, response_mask: Tensor) -> Tensor:
    """-sum_k log(exp r_k / sum_{j >= k} exp r_j): the best is taken first, then the best of the rest (Plackett 1975).

    Of two responses it is Bradley-Terry's.

    Args:
        rewards: [B, K], the best response's first; where `response_mask` is False nothing is read.
    """
    rewards = torch.where(response_mask, rewards.float(), 0.0)
    ranks = torch.arange(rewards.shape[1], device=rewards.device)
    # An absent response is left with itself, so that no sum is over nothing, whose gradient is not a number.
    is_rest = (ranks >= ranks[:, None]) & response_mask[:, None, :] | (ranks == ranks[:, None])
    rest = rewards[:, None, :].expand(-1, len(ranks), -1).masked_fill(~is_rest, -torch.inf).logsumexp(dim=-1)
    return torch.where(response_mask, rest - rewards, 0.0).sum()


def regression_loss(rewards: Tensor, scores: Tensor) -> Tensor:
    """(r - s)^2 / 2 of each response's reward r and absolute score s, both [B]: least squares.

    As reward models learn attributes' scores in HelpSteer2 (Wang et al. 2024, arXiv 2406.08673).
    """
    return 0.5 * (rewards.float() - scores).square().sum()


def consistency_loss(rewards: Tensor, counterfactual_rewards: Tensor, mask: Tensor) -> Tensor:
    """(r - r')^2 of each response's reward r and that of its counterfactual r', a row's mean over those that have one.

    All [B, K]; where `mask` is False there is none. Counterfactual logit pairing (Garg et al. 2019, arXiv 1809.10610,
    section 4) with squares in place of absolute values, so that it has a gradient of its own size everywhere.
    """
    gaps = torch.where(mask, rewards.float() - counterfactual_rewards.float(), 0.0)
    return (gaps.square().sum(dim=1) / mask.sum(dim=1).clamp(min=1)).sum()


class OrderedPairs(NamedTuple):
    """Attributes: scalars, sums over rows of a row's mean over its pairs of a better and a worse response.

    accuracy: whether the better one has the higher reward; a tie counts one half.
    margin: how much higher its reward is.
    """

    accuracy: Tensor
    margin: Tensor


def ordered_pairs(rewards: Tensor, response_mask: Tensor) -> OrderedPairs:
    """Rewards [B, K] with the best response's first; a row with fewer than two responses counts 0. No gradient."""
    rewards = torch.where(response_mask, rewards.detach().float(), 0.0)
    is_pair = (response_mask[:, :, None] & response_mask[:, None, :]).triu(diagonal=1)
    differences = rewards[:, :, None] - rewards[:, None, :]
    weights = is_pair / is_pair.sum(dim=(1, 2), keepdim=True).clamp(min=1)
    return OrderedPairs(((differences.sign() + 1) / 2 * weights).sum(), (differences * weights).sum())
