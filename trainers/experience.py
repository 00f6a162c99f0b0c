"""Rollouts and their scores become what the learner trains on: rewards, advantages and returns of each token.

All tensors are [B, T] over whole sequences: the prompt, then the answer, padded on the right. Column t is about token
`input_ids[:, t]`: its log-probability given the tokens before it, the value of the state before it. `action_mask` is
True on exactly the tokens that the policy wrote; elsewhere every result is 0, and nothing there is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.objectives import Gae, TruncatedImportance
from configs.stages import Ppo
from rollout.records import Rollout
from trainers.advantages import gae, masked_mean, masked_variance, whiten
from trainers.errors import NotFinite, StaleRollouts
from trainers.kl import kl_estimate
from trainers.losses import truncated_importance_weights

NUM_NAMED = 8
"""Rows that an error names at most."""


@dataclass(frozen=True)
class Trajectories:
    """Sampled answers as tensors.

    Attributes:
        input_ids: int64 [B, T].
        attention_mask: bool [B, T], True on real tokens.
        action_mask: bool [B, T], never True in column 0.
        sampler_logprobs: float32 [B, T], 0 outside the action mask.
        versions: int32 [B, T], the policy version that made each token; -1 outside the action mask.
        ends_with_eos: bool [B], False where the answer was cut at its length limit.
    """

    input_ids: Tensor
    attention_mask: Tensor
    action_mask: Tensor
    sampler_logprobs: Tensor
    versions: Tensor
    ends_with_eos: Tensor


@dataclass(frozen=True)
class Evaluated:
    """The learner's forward passes over the trajectories, before the update: float32 [B, T] each.

    Attributes:
        logprobs: under the policy, at the sampling temperature.
        ref_logprobs: under the reference, at the same temperature.
        values: of the critic.
    """

    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor


@dataclass(frozen=True)
class Experience:
    """What one step's update is computed from. float32 [B, T] where not said otherwise.

    Attributes:
        input_ids: int64.
        attention_mask: bool.
        action_mask: bool.
        old_logprobs: of the learner's policy as the update begins.
        values: of the critic as the update begins.
        advantages: whitened over the whole batch where `ppo.estimator.whiten` says so.
        returns: what the critic is to predict.
        importance_weights: truncated pi_learner / pi_sampler; 1 on every action where the correction is off.
    """

    input_ids: Tensor
    attention_mask: Tensor
    action_mask: Tensor
    old_logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    importance_weights: Tensor

    @property
    def num_rows(self) -> int:
        return len(self.input_ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.attention_mask.sum(dim=1).numpy()

    def rows(self, index: NDArray[np.int64], /) -> "Experience":
        """The rows at `index` [b], cut on the right to the longest of them."""
        width = max(int(self.attention_mask[index].sum(dim=1).max()), 1)
        return Experience(*(getattr(self, field.name)[index, :width] for field in fields(self)))


@dataclass(frozen=True)
class ExperienceStats:
    """One step's figures before the update. Rows without an action count in `num_empty` and nowhere else.

    Attributes:
        num_answers: rows with at least one action token.
        num_empty: rows without one: no reward, no signal.
        num_tokens: action tokens.
        score_mean, score_std: of the scorer's total, before clipping and penalty.
        kl_mean: KL of a whole answer from the reference in nats, the k1 estimate, mean over answers.
        return_mean: reward of a whole answer, score and KL penalty together, undiscounted.
        missing_eos_share: of the answers, those cut at the length limit.
        answer_tokens_mean: action tokens of an answer.
        sampler_gap_mean, sampler_gap_max: |log pi_learner - log pi_sampler| over action tokens, in nats.
        truncated_share: of the action tokens, those whose importance weight was held at the cap.
        explained_variance: 1 - Var(return - value) / Var(return) over action tokens; 0 where returns are all equal.
    """

    num_answers: int
    num_empty: int
    num_tokens: int
    score_mean: float
    score_std: float
    kl_mean: float
    return_mean: float
    missing_eos_share: float
    answer_tokens_mean: float
    sampler_gap_mean: float
    sampler_gap_max: float
    truncated_share: float
    explained_variance: float


def collate_rollouts(rollouts: Sequence[Rollout], pad_id: int) -> Trajectories:
    """Whole sequences side by side, padded on the right with `pad_id`, in the order given.

    Raises:
        ValueError: there are none, one is partial (aborted), or its arrays differ in length.
    """
    if not rollouts:
        raise ValueError("no rollouts to collate")
    for row, rollout in enumerate(rollouts):
        _check_rollout(row, rollout)
    num_rows = len(rollouts)
    width = max(len(rollout.request.prompt_ids) + len(rollout.token_ids) for rollout in rollouts)
    input_ids = np.full((num_rows, width), pad_id, dtype=np.int64)
    attention_mask = np.zeros((num_rows, width), dtype=np.bool_)
    action_mask = np.zeros((num_rows, width), dtype=np.bool_)
    sampler_logprobs = np.zeros((num_rows, width), dtype=np.float32)
    versions = np.full((num_rows, width), -1, dtype=np.int32)
    for row, rollout in enumerate(rollouts):
        start = len(rollout.request.prompt_ids)
        end = start + len(rollout.token_ids)
        input_ids[row, :start] = rollout.request.prompt_ids
        input_ids[row, start:end] = rollout.token_ids
        attention_mask[row, :end] = True
        action_mask[row, start:end] = rollout.action_mask
        sampler_logprobs[row, start:end] = np.where(rollout.action_mask, rollout.logprobs, 0.0)
        versions[row, start:end] = np.where(rollout.action_mask, rollout.versions, -1)
    return Trajectories(
        torch.from_numpy(input_ids),
        torch.from_numpy(attention_mask),
        torch.from_numpy(action_mask),
        torch.from_numpy(sampler_logprobs),
        torch.from_numpy(versions),
        torch.tensor([rollout.finish_reason == "stop" for rollout in rollouts]),
    )


def make_experience(
    trajectories: Trajectories,
    scores: Tensor,
    evaluated: Evaluated,
    ppo: Ppo,
    kl_coefficient: float,
    learner_version: int,
) -> tuple[Experience, ExperienceStats]:
    """Rewards, advantages, returns and importance weights of one step's whole batch.

    Args:
        scores: float [B], the scorer's total of each answer.
        kl_coefficient: beta of the KL penalty in the reward.
        learner_version: the version that the update starts from.

    Raises:
        StaleRollouts: a token is older than `ppo.max_staleness` versions, or newer than the learner.
        NotFinite: a score, or a number at an action token, is NaN or infinite.
    """
    assert isinstance(ppo.estimator, Gae)
    mask = trajectories.action_mask
    check_fresh(trajectories, learner_version, ppo.max_staleness)
    _check_finite("scores", scores)
    named = {"sampler_logprobs": trajectories.sampler_logprobs} | vars(evaluated)
    for name, tensor in named.items():
        _check_finite(name, torch.where(mask, tensor, 0.0))
    logprobs = torch.where(mask, evaluated.logprobs.float(), 0.0)
    ref_logprobs = torch.where(mask, evaluated.ref_logprobs.float(), 0.0)
    values = torch.where(mask, evaluated.values.float(), 0.0)

    kl = kl_estimate(logprobs, ref_logprobs, "k1")
    rewards = token_rewards(kl, final_rewards(scores, trajectories, ppo), mask, kl_coefficient)
    advantages, returns = gae(rewards, values, mask, ppo.estimator.gamma, ppo.estimator.lam)
    weights = mask.float()
    cap = ppo.importance.cap if isinstance(ppo.importance, TruncatedImportance) else None
    if cap is not None:
        weights = truncated_importance_weights(logprobs, trajectories.sampler_logprobs, mask, cap)
    experience = Experience(
        input_ids=trajectories.input_ids,
        attention_mask=trajectories.attention_mask,
        action_mask=mask,
        old_logprobs=logprobs,
        values=values,
        advantages=whiten(advantages, mask) if ppo.estimator.whiten else advantages,
        returns=returns,
        importance_weights=weights,
    )
    return experience, _stats(trajectories, scores, experience, kl, rewards, cap)


def final_rewards(scores: Tensor, trajectories: Trajectories, ppo: Ppo) -> Tensor:
    """What each whole answer earns, float32 [B]: the clipped score, less a penalty where the answer was cut."""
    scores = scores.float()
    if ppo.shaping.clip is not None:
        scores = scores.clamp(-ppo.shaping.clip, ppo.shaping.clip)
    return scores - ppo.shaping.missing_eos_penalty * (~trajectories.ends_with_eos).float()


def token_rewards(kl: Tensor, final: Tensor, action_mask: Tensor, kl_coefficient: float) -> Tensor:
    """-beta KL on every action token, and the answer's reward [B] on the row's last one; [B, T], 0 elsewhere."""
    rewards = torch.where(action_mask, -kl_coefficient * kl, 0.0)
    columns = torch.arange(action_mask.shape[1], device=action_mask.device)
    last = torch.where(action_mask, columns, -1).max(dim=1, keepdim=True).values
    return torch.where(action_mask & (columns == last), rewards + final[:, None], rewards)


def check_fresh(trajectories: Trajectories, learner_version: int, max_staleness: int) -> None:
    """Raises StaleRollouts unless every action token is of a version that the learner may train on."""
    behind = learner_version - trajectories.versions
    refused = trajectories.action_mask & ((behind < 0) | (behind > max_staleness) | (trajectories.versions < 0))
    if refused.any():
        found = sorted(set(trajectories.versions[refused].tolist()))
        raise StaleRollouts(
            f"{_rows(refused.any(dim=1))}: tokens of policy version {', '.join(map(str, found))}, but the learner "
            f"is at version {learner_version} and ppo.max_staleness={max_staleness}"
        )


def _check_rollout(row: int, rollout: Rollout) -> None:
    lengths = {len(x) for x in (rollout.token_ids, rollout.logprobs, rollout.versions, rollout.action_mask)}
    name = f"rollout {row} (prompt {rollout.request.prompt_id})"
    if len(lengths) > 1:
        raise ValueError(f"{name}: token_ids, logprobs, versions and action_mask differ in length: {sorted(lengths)}")
    if rollout.finish_reason == "aborted":
        raise ValueError(f"{name} is partial: finish it before training on it")
    if not len(rollout.request.prompt_ids):
        raise ValueError(f"{name} has an empty prompt: nothing would predict its first token")


def _check_finite(name: str, x: Tensor) -> None:
    broken = ~torch.isfinite(x)
    if broken.any():
        rows = broken if broken.dim() == 1 else broken.any(dim=1)
        raise NotFinite(f"{name}: not finite in {_rows(rows)}", tuple(rows.nonzero().flatten().tolist()))


def _rows(flags: Tensor) -> str:
    """The rows where bool [B] `flags` is True, for a message."""
    rows = flags.nonzero().flatten().tolist()
    more = f" and {len(rows) - NUM_NAMED} more" if len(rows) > NUM_NAMED else ""
    return f"row {', '.join(map(str, rows[:NUM_NAMED]))}{more} of the batch of {len(flags)}"


def _stats(
    trajectories: Trajectories,
    scores: Tensor,
    experience: Experience,
    kl: Tensor,
    rewards: Tensor,
    importance_cap: float | None,
) -> ExperienceStats:
    mask = experience.action_mask
    answered = mask.any(dim=1)
    gap = torch.where(mask, experience.old_logprobs - trajectories.sampler_logprobs, 0.0).abs()
    truncated = torch.zeros_like(mask) if importance_cap is None else experience.importance_weights >= importance_cap
    spread = masked_variance(experience.returns, mask).item()
    error = masked_variance(experience.returns - experience.values, mask).item()
    return ExperienceStats(
        num_answers=int(answered.sum()),
        num_empty=int((~answered).sum()),
        num_tokens=int(mask.sum()),
        score_mean=masked_mean(scores, answered).item(),
        score_std=masked_variance(scores.float(), answered).sqrt().item(),
        kl_mean=masked_mean(kl.sum(dim=1), answered).item(),
        return_mean=masked_mean(rewards.sum(dim=1), answered).item(),
        missing_eos_share=masked_mean(~trajectories.ends_with_eos, answered).item(),
        answer_tokens_mean=masked_mean(mask.sum(dim=1), answered).item(),
        sampler_gap_mean=masked_mean(gap, mask).item(),
        sampler_gap_max=gap.max().item(),
        truncated_share=masked_mean(truncated, mask).item(),
        explained_variance=1 - error / spread if spread > 0 else 0.0,
    )
