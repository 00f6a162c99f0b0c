"""From the scorer's total to the reward of each token."""

from typing import NamedTuple

import torch
from torch import Tensor

from plumbob.configs.settings.algorithms import OverlongPenaltySettings, ShapingSettings


def task_rewards(scores: Tensor, shaping: ShapingSettings) -> Tensor:
    """clip(scale s, -c, c): what each response earns for its task, float32 [B], before anything is taken off.

    Zheng et al. 2023 (arXiv 2307.04964).

    Args:
        scores: s, the scorer's totals, [B].
    """
    rewards = shaping.scale * scores.float()
    return rewards if shaping.clip is None else rewards.clamp(-shaping.clip, shaping.clip)


class ShapedRewards(NamedTuple):
    """What each response has earned after each stage of the shaping, in their order, float32 [B]; at last, its reward.

    Attributes:
        scaled: the scorer's total, scaled.
        clipped: cut to the bounds: what it earns for its task.
        ended: less what a missing end costs.
        in_length: less what its tokens cost.
        in_limit: less what coming close to the limit costs.
    """

    scaled: Tensor
    clipped: Tensor
    ended: Tensor
    in_length: Tensor
    in_limit: Tensor

    @property
    def rewards(self) -> Tensor:
        """What each whole response earns, [B]."""
        return self.in_limit


class EarnedRewards(NamedTuple):
    """How scores became what the estimator of advantages saw.

    Attributes:
        scores: what the shaping began with, float [B].
        shaped: what each response had earned after each stage; None of distillation, which learns from no reward.
        tokens: the reward of each token, float32 [B, T].
    """

    scores: Tensor
    shaped: ShapedRewards | None
    tokens: Tensor


def shaped_rewards(
    scores: Tensor,
    ends_with_eos: Tensor,
    num_tokens: Tensor,
    lengths: Tensor,
    shaping: ShapingSettings,
    max_tokens: int,
) -> ShapedRewards:
    """The task's reward - e [no EOS] - l max(0, |y| - free) - o(L): what each whole response earns, stage by stage.

    No EOS: Huang et al. 2024 (arXiv 2403.17031), the EOS trick; o: `overlong_penalty`.

    Args:
        scores: the scorer's totals, [B].
        ends_with_eos: bool [B], False where the response was cut at its length limit.
        num_tokens: |y|, the tokens that the policy wrote, its EOS included, [B].
        lengths: L, all tokens of the response, [B]: of an episode also the environment's, which the limit counts too.
        max_tokens: the length limit.
    """
    clipped = task_rewards(scores, shaping)
    ended = in_length = clipped - shaping.missing_eos_penalty * (~ends_with_eos).float()
    if shaping.length_penalty is not None:
        over = (num_tokens - shaping.length_penalty.free_tokens).clamp(min=0)
        in_length = ended - shaping.length_penalty.per_token * over.float()
    in_limit = in_length
    if shaping.overlong_penalty is not None:
        in_limit = in_length - overlong_penalty(lengths, shaping.overlong_penalty, max_tokens)
    return ShapedRewards(shaping.scale * scores.float(), clipped, ended, in_length, in_limit)


def overlong_penalty(lengths: Tensor, settings: OverlongPenaltySettings, max_tokens: int) -> Tensor:
    """p clip((L - (L_max - L_cache)) / L_cache, 0, 1), float32 [B] (DAPO, arXiv 2503.14476, equation 13, negated).

    Args:
        max_tokens: L_max, the length limit.
    """
    over = lengths - (max_tokens - settings.cache_tokens)
    return settings.penalty * (over.float() / settings.cache_tokens).clamp(0, 1)


def token_rewards(
    response_rewards: Tensor, turn_rewards: Tensor, kl: Tensor, action_mask: Tensor, kl_coefficient: float
) -> Tensor:
    """-beta KL on every action token, and what the response earns where it earns it; [B, T], 0 outside the mask.

    A row's sum is its response's reward less beta times its KL, however much of it is earned at turns.

    Args:
        response_rewards: of whole responses, [B].
        turn_rewards: the part of them that turns of an episode earn, on their last tokens, [B, T]; the rest is earned
            on the row's last action token.
        kl_coefficient: beta; 0 where the divergence is paid for in the loss.
    """
    turn_rewards = torch.where(action_mask, turn_rewards, 0.0)
    rewards = turn_rewards + torch.where(action_mask, -kl_coefficient * kl, 0.0)
    at_end = response_rewards - turn_rewards.sum(dim=1)
    columns = torch.arange(action_mask.shape[1], device=action_mask.device)
    last = torch.where(action_mask, columns, -1).max(dim=1, keepdim=True).values
    return torch.where(action_mask & (columns == last), rewards + at_end[:, None], rewards)
