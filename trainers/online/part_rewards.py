"""What responses are learnt from: the scorer's totals, or the reward's parts standardised in their groups."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import Distillation
from plumbob.configs.settings.reward_parts import EnvironmentPart
from plumbob.configs.settings.rewards import CombinedReward
from plumbob.configs.settings.training import OnlineSettings
from plumbob.reward.scorer import Score
from plumbob.rollout.rollout_heads import Response
from plumbob.trainers.algorithms.advantages import standardised_parts
from plumbob.trainers.algorithms.whole_batch import masked_mean, masked_variance
from plumbob.trainers.online.step_metrics import ExperienceStats


class CombinedScores(NamedTuple):
    """What a step's shaping begins with.

    Attributes:
        totals: float [B].
        standardised: part -> its weight times its standard score in its group, whose sum is the total, float32 [B];
            none where the scorer's own totals are learnt from.
    """

    totals: Tensor
    standardised: Mapping[str, Tensor]


def combined_scores(run: OnlineRun, scores: Sequence[Score], is_trained: Tensor, groups: Tensor) -> CombinedScores:
    """The totals, or by `online.combine_parts` the weighted sum of each part's standard score within its group.

    A gate whose value is 0 makes the values of all the response's parts 0.

    Args:
        is_trained: bool [B], False where the response is in no group.
        groups: rows with the same number respond to the same prompt, int64 [B].
    """
    if run.online.combine_parts == "sum":
        return CombinedScores(torch.tensor([score.total for score in scores]), {})
    reward = None if run.reward is None else run.reward.reward
    assert isinstance(reward, CombinedReward), "checked with the settings"
    gates = [part.name for part in reward.parts if part.is_gate]
    is_open = torch.tensor([all(score.parts[name] != 0 for name in gates) for score in scores])
    values = torch.tensor([[score.parts[part.name] for score in scores] for part in reward.parts])
    weights = torch.tensor([part.weight for part in reward.parts])
    standardised = standardised_parts(values * is_open, weights, is_trained, groups)
    return CombinedScores(
        standardised.sum(dim=0), dict(zip((part.name for part in reward.parts), standardised, strict=True))
    )


def turn_reward_scale(run: OnlineRun) -> float:
    """What the reward of an episode's turn counts in the response's: its part's weight, scaled as the total is.

    0 where none counts by itself: without such a part, and where parts count by their standard scores.
    """
    reward = None if run.reward is None else run.reward.reward
    if run.online.combine_parts != "sum" or not isinstance(reward, CombinedReward):
        return 0.0
    weights = [part.weight for part in reward.parts if isinstance(part.reward, EnvironmentPart)]
    return run.online.shaping.scale * sum(weights)


def have_actions(rollouts: Sequence[Response]) -> Tensor:
    """bool [B], False where the policy wrote nothing."""
    return torch.tensor([rollout.num_actions > 0 for rollout in rollouts])


def are_learnt(online: OnlineSettings, rollouts: Sequence[Response]) -> Tensor:
    """bool [B], False where the policy wrote nothing, or what was cut is left out."""
    is_kept = torch.tensor([rollout.finish_reason == "stop" or not online.mask_truncated for rollout in rollouts])
    return have_actions(rollouts) & is_kept


def with_totals(run: OnlineRun, stats: ExperienceStats, scores: Sequence[Score], has_action: Tensor) -> ExperienceStats:
    """The same, with the scorer's totals as the scores, whatever was learnt from; without any where none is given."""
    if isinstance(run.online.estimator, Distillation) and run.reward is None:
        return replace(stats, score_mean=None, score_std=None)
    totals = torch.tensor([score.total for score in scores])
    mean, std = masked_mean(totals, has_action).item(), masked_variance(totals, has_action).sqrt().item()
    return replace(stats, score_mean=mean, score_std=std)
