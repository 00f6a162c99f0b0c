"""Rollouts and their scores become what the learner trains on: rewards, advantages and weights of each token.

All tensors are [B, T] over whole sequences: the prompt, then the response, padded on the right. Column t is about token
`input_ids[:, t]`: its log-probability given the tokens before it, the value of the state before it. `action_mask` is
True on exactly the tokens that the policy wrote; elsewhere every result is 0, and nothing there is read.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbob.configs.settings.algorithms import Distillation, Estimator
from plumbob.configs.settings.training import OnlineSettings
from plumbob.data.batch import Batch, Prompts, prompts_before
from plumbob.models.padding import columns_in_use
from plumbob.trainers.algorithms.advantages import estimate
from plumbob.trainers.algorithms.importance_sampling import ImportanceWeights, importance_weights
from plumbob.trainers.algorithms.kl import kl_estimate
from plumbob.trainers.algorithms.reward_shaping import EarnedRewards, shaped_rewards, token_rewards
from plumbob.trainers.algorithms.whole_batch import ONE_RANK, WholeBatch, masked_mean, masked_variance
from plumbob.trainers.online.row_masks import loss_weights, response_lengths, train_masks
from plumbob.trainers.online.step_metrics import ExperienceStats
from plumbob.trainers.online.trajectories import (
    ComparedRows,
    Trajectories,
    check_finite,
    check_fresh,
    largest_gap,
    sampler_gaps,
)

COMPUTED = ("logprobs", "ref_logprobs", "values")
"""Of `LogprobsAndValues`, what every action has."""


@dataclass(frozen=True)
class TeacherLogprobs:
    """Of the tokens that were sampled: `numbers` int64 [B] of each row's teacher, `logprobs` float32 [B, T] by it."""

    numbers: Tensor
    logprobs: Tensor


@dataclass(frozen=True)
class LogprobsAndValues:
    """What is known of the trajectories before the update: float32 [B, T] each, by the learner's forwards.

    Attributes:
        logprobs: under the policy, at the sampling temperature.
        ref_logprobs: under the reference, at the same temperature.
        values: of the critic; None where the estimator has none.
        probed: where `logprobs` are the sampler's, the rows that the learner computed too; None where all are its own.
        graded: by the teachers, at the same temperature; None where there are none.
        entropies: of the learner's distribution at each token's place, in nats; None where `logprobs` are the
            sampler's.
    """

    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor | None
    probed: ComparedRows | None = None
    graded: TeacherLogprobs | None = None
    entropies: Tensor | None = None

    @property
    def compared(self) -> ComparedRows:
        """What the sampler's log-probs can be compared with."""
        return self.probed or ComparedRows(np.arange(len(self.logprobs)), self.logprobs)


@dataclass(frozen=True)
class CriticTargets(Batch):
    """What the critic learns from. `values` [B, T]: its own as the update begins; `returns`: what it is to predict."""

    values: Tensor
    returns: Tensor


@dataclass(frozen=True)
class LossKl(Batch):
    """The divergence that is paid for in the loss: the reference's log-probs [B, T], and beta of this step."""

    ref_logprobs: Tensor
    coefficient: float


@dataclass(frozen=True)
class Experience(Batch):
    """What one step's update is computed from. float32 [B, T] where not said otherwise.

    Attributes:
        input_ids: int64.
        attention_mask: bool.
        action_mask: bool, of responses that are learnt from; another is as if it were empty.
        old_logprobs: of the policy as the update begins, the learner's or the sampler's.
        advantages: by `online.estimator`, over the whole batch.
        loss_weights: what a token weighs in a mean over rows, which is sum(w x) / sum(w).
        importance_weights: by `online.importance`; 1 on every action where there is no correction.
        critic: None where the estimator has none.
        kl: None where the divergence is in the reward.
        teachers: int64 [B], the number of each row's; None but for distillation in its `full` form.
        asks_entropies: whether the update's first epoch is to measure the entropies, which are not known yet.
    """

    input_ids: Tensor
    attention_mask: Tensor
    action_mask: Tensor
    old_logprobs: Tensor
    advantages: Tensor
    loss_weights: Tensor
    importance_weights: Tensor
    critic: CriticTargets | None
    kl: LossKl | None
    teachers: Tensor | None = None
    asks_entropies: bool = False

    @property
    def prompts(self) -> Prompts:
        return prompts_before(self.input_ids, self.attention_mask, self.action_mask)

    def rows(self, index: NDArray[np.int64], /) -> Self:
        """The rows at `index` [b], without columns that are padding in all of them."""
        taken = super().rows(index)
        columns = columns_in_use(taken.attention_mask)
        return taken.map_arrays(lambda values: values[:, columns] if values.ndim > 1 else values)

    def in_later_epochs(self) -> Self:
        return replace(super().in_later_epochs(), asks_entropies=False)


class MadeExperience(NamedTuple):
    """What one step learns from, the metrics of it, and how its rewards came about."""

    experience: Experience
    stats: ExperienceStats
    earned: EarnedRewards


def make_experience(
    trajectories: Trajectories,
    scores: Tensor,
    computed: LogprobsAndValues,
    online: OnlineSettings,
    kl_coefficient: float,
    learner_version: int,
    max_tokens: int,
    turn_reward_scale: float = 0.0,
    batch: WholeBatch = ONE_RANK,
) -> MadeExperience:
    """Rewards, advantages and weights of a step's rows: all of them, or those of this rank, by statistics of all.

    Args:
        scores: float [B], the scorer's total of each response.
        kl_coefficient: beta of the KL penalty, in the reward or in the loss.
        learner_version: the version that the update starts from.
        max_tokens: the length limit of responses.
        turn_reward_scale: what the rewards of an episode's turns count in its score, which has them already.
        batch: that these rows are of.

    Raises:
        StaleRollouts: a token is older than `online.max_staleness` versions, or newer than the learner.
        NotFinite: a score, or a number at an action token, is NaN or infinite.
    """
    mask = trajectories.action_mask
    check_fresh(trajectories, learner_version, online.max_staleness, batch)
    _check_numbers(trajectories, scores, computed, batch)
    logprobs = torch.where(mask, computed.logprobs.float(), 0.0)
    ref_logprobs = torch.where(mask, computed.ref_logprobs.float(), 0.0)
    values = None if computed.values is None else torch.where(mask, computed.values.float(), 0.0)

    kl = kl_estimate(logprobs, ref_logprobs, "k1")
    in_reward = online.kl.place == "reward"
    attended, learnt = train_masks(trajectories, online.mask_truncated)
    num_tokens = mask.sum(dim=1)
    lengths = response_lengths(mask)
    shaped = shaped_rewards(scores, trajectories.ends_with_eos, num_tokens, lengths, online.shaping, max_tokens)
    turn_rewards = turn_reward_scale * trajectories.turn_rewards
    rewards = token_rewards(shaped.rewards, turn_rewards, kl, mask, kl_coefficient if in_reward else 0.0)
    if computed.graded is not None:
        rewards = torch.where(mask, computed.graded.logprobs.float() - logprobs, 0.0)
    advantages, returns = estimate(online.estimator, rewards, values, learnt, trajectories.groups, batch)
    importance = importance_weights(online.importance, logprobs, trajectories.sampler_logprobs, mask)
    experience = Experience(
        input_ids=trajectories.input_ids,
        attention_mask=attended,
        action_mask=learnt,
        old_logprobs=torch.where(learnt, logprobs, 0.0),
        advantages=advantages,
        loss_weights=loss_weights(learnt, online.loss_mean),
        importance_weights=torch.where(learnt, importance.weights, 0.0),
        critic=None if values is None or returns is None else CriticTargets(values, returns),
        kl=None if in_reward else LossKl(torch.where(learnt, ref_logprobs, 0.0), kl_coefficient),
        teachers=computed.graded.numbers if computed.graded and learns_whole_kl(online.estimator) else None,
        asks_entropies=computed.entropies is None,
    )
    stats = _stats(trajectories, scores, computed.compared, experience, kl, rewards, importance, batch)
    earned = EarnedRewards(scores, shaped if computed.graded is None else None, rewards)
    return MadeExperience(experience, stats, earned)


def _check_numbers(trajectories: Trajectories, scores: Tensor, computed: LogprobsAndValues, batch: WholeBatch) -> None:
    check_finite("scores", scores, batch)
    named = {"sampler_logprobs": trajectories.sampler_logprobs}
    if computed.graded is not None:
        named["teacher_logprobs"] = computed.graded.logprobs
    for name, tensor in (named | {name: getattr(computed, name) for name in COMPUTED}).items():
        if tensor is not None:
            check_finite(name, torch.where(trajectories.action_mask, tensor, 0.0), batch)


def learns_whole_kl(estimator: Estimator) -> bool:
    """Whether what is learnt is the KL from a teacher over the whole vocabulary, instead of a policy gradient."""
    return isinstance(estimator, Distillation) and estimator.form == "full"


def _stats(
    trajectories: Trajectories,
    scores: Tensor,
    compared: ComparedRows,
    experience: Experience,
    kl: Tensor,
    rewards: Tensor,
    importance: ImportanceWeights,
    batch: WholeBatch,
) -> ExperienceStats:
    mask = trajectories.action_mask
    has_action = mask.any(dim=1)
    gaps = sampler_gaps(trajectories, compared)
    counts = batch.gather(torch.stack([has_action.long(), mask.sum(dim=1)], dim=1))

    def mean(x: Tensor, cells: Tensor) -> float:
        return masked_mean(x, cells, batch).item()

    return ExperienceStats(
        num_responses=int(counts[:, 0].sum()),
        num_empty=int((counts[:, 0] == 0).sum()),
        num_tokens=int(counts[:, 1].sum()),
        score_mean=mean(scores, has_action),
        score_std=masked_variance(scores.float(), has_action, batch).sqrt().item(),
        kl_mean=mean(kl.sum(dim=1), has_action),
        return_mean=mean(rewards.sum(dim=1), has_action),
        missing_eos_share=mean(~trajectories.ends_with_eos, has_action),
        response_tokens_mean=mean(mask.sum(dim=1), has_action),
        sampler_gap_mean=mean(gaps.sizes[compared.index], gaps.mask[compared.index]),
        sampler_gap_max=largest_gap(gaps, batch),
        importance_cut_share=mean(importance.is_cut, mask),
        explained_variance=critic_explained_variance(experience.critic, experience.action_mask, batch),
    )


def critic_explained_variance(critic: CriticTargets | None, mask: Tensor, batch: WholeBatch = ONE_RANK) -> float | None:
    """1 - Var(return - value) / Var(return) over all rows; None without a critic."""
    if critic is None:
        return None
    spread = masked_variance(critic.returns, mask, batch).item()
    error = masked_variance(critic.returns - critic.values, mask, batch).item()
    return 1 - error / spread if spread > 0 else 0.0
