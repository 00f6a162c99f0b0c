"""The objective of a step: what of its experience is learnt, by which loss terms, and the forwards before it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbob.configs.settings.algorithms import RANKED, BestOfN, Distillation, Estimator, OnlineDpo, critic_of
from plumbob.configs.settings.training import OnlineSettings
from plumbob.data.batch import Batch, Prompts, prompts_before
from plumbob.rollout.rollout_heads import Response
from plumbob.trainers.algorithms.policy_losses import kl_loss, policy_loss, value_loss
from plumbob.trainers.algorithms.preference_losses import check_users_loss, load_users_loss
from plumbob.trainers.learner.learner_protocol import LossSum, LossTerm
from plumbob.trainers.learner.ranks.rank_learner import RankLearner
from plumbob.trainers.learner.token_values import FIRST, TokenMeasures
from plumbob.trainers.online.experience import (
    Experience,
    LogprobsAndValues,
    TeacherLogprobs,
)
from plumbob.trainers.online.objectives.movement import movement
from plumbob.trainers.online.objectives.ranked_responses import (
    best_responses,
    num_pairs,
    pair_loss_sum,
    response_pairs,
)
from plumbob.trainers.online.objectives.teacher_kl import teacher_kl_sum
from plumbob.trainers.online.trajectories import ComparedRows, Trajectories, largest_gap, sampler_gaps

MAX_TRUSTED_GAP = 1e-4
"""Nats between sampler and learner at a token, up to which the one's log-probs stand for the other's.

In float32 they are some 1e-6 apart, in bfloat16 some 1e-2.
"""

PROBED_SHARE = 16
"""One row in so many is probed."""

RATIOS, CLIPPED, ENTROPIES = "ratios", "clipped", f"{FIRST}entropies"
"""What an update measures of each token: pi / pi_old, whether it is clipped, and entropies where none are known yet."""


class TrainRows(NamedTuple):
    """What a step learns from.

    Attributes:
        batch: what the loss terms are given.
        rows: of the step's responses the one that each row of the batch is named after in messages, [B].
    """

    batch: Batch
    rows: NDArray[np.int64]


def train_rows(estimator: Estimator, experience: Experience, computed: LogprobsAndValues, groups: Tensor) -> TrainRows:
    """What the estimator's loss terms learn from: the experience itself, or rows that a `RANKED` one makes of it.

    Args:
        groups: int64 [B], rows with the same number respond to the same prompt.
    """
    if not isinstance(estimator, RANKED):
        return TrainRows(experience, np.arange(experience.num_rows))
    match estimator:
        case BestOfN():
            return TrainRows(*best_responses(experience, groups))
        case OnlineDpo():
            return TrainRows(*response_pairs(experience, computed.ref_logprobs, groups))
        case _:
            assert_never(estimator)


def check_estimator(estimator: Estimator) -> None:
    """Try a loss of the user's that it learns by. Raises UserError."""
    if isinstance(estimator, OnlineDpo):
        check_users_loss(estimator.loss)


def online_loss_terms(online: OnlineSettings, temperature: float) -> tuple[LossTerm[Any], ...]:
    """The policy's loss, and a critic's where there is one; means over the optimizer step."""
    match online.estimator:
        case OnlineDpo(loss=loss):
            load_users_loss(loss)
            return (LossTerm("policy", partial(pair_loss_sum, loss, temperature), num_pairs),)
        case Distillation(form="full"):
            return (LossTerm("policy", partial(teacher_kl_sum, temperature), total_weight),)
    policy = LossTerm("policy", partial(policy_loss_sum, online, temperature), total_weight)
    critic = critic_of(online.estimator)
    if critic is None:
        return (policy,)
    return (policy, LossTerm("value", partial(value_loss_sum, critic.value_clip_range, temperature), total_weight))


def policy_loss_sum(online: OnlineSettings, temperature: float, forward: Any, batch: Experience) -> LossSum:
    """The surrogate, and beta times the KL penalty where it is in the loss."""
    logprobs, measured = _logprobs_and_entropies(forward, batch, temperature)
    old, advantages, mask, weights, importance = (
        x.to(logprobs.device)
        for x in (
            batch.old_logprobs,
            batch.advantages,
            batch.action_mask,
            batch.loss_weights,
            batch.importance_weights,
        )
    )
    result = policy_loss(online.policy_loss, logprobs, old, advantages, mask, weights, importance)
    statistics = {"policy_loss": result.loss.detach(), "clipped_share": result.clipped}
    statistics |= movement(logprobs, old, mask, weights)
    tokens = TokenMeasures(mask, {RATIOS: result.ratios, CLIPPED: result.is_clipped} | measured)
    if batch.kl is None:
        return LossSum(result.loss, statistics, tokens)
    assert online.kl.estimate != "k1", "its gradient is zero in expectation"
    reference = batch.kl.ref_logprobs.to(logprobs.device)
    penalty = kl_loss(logprobs, reference, mask, weights, importance, online.kl.estimate)
    statistics["kl_loss"] = penalty.detach()
    return LossSum(result.loss + batch.kl.coefficient * penalty, statistics, tokens)


def _logprobs_and_entropies(forward: Any, batch: Experience, temperature: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probs [B, T], and by its name what else was asked for."""
    asked = batch.input_ids, batch.attention_mask, batch.action_mask, temperature
    if not batch.asks_entropies:
        return forward(*asked), {}
    logprobs, entropies = forward(*asked, None, None, True).unbind(dim=1)
    return logprobs, {ENTROPIES: entropies.detach()}


def value_loss_sum(clip_range: float | None, temperature: float, forward: Any, batch: Experience) -> LossSum:
    assert batch.critic is not None, "a critic learns from its own targets"
    values = forward(batch.input_ids, batch.attention_mask, batch.action_mask, temperature)
    old, returns, mask, weights = (
        x.to(values.device) for x in (batch.critic.values, batch.critic.returns, batch.action_mask, batch.loss_weights)
    )
    result = value_loss(values, old, returns, mask, weights, clip_range)
    return LossSum(result.loss, {"value_loss": result.loss.detach(), "value_clipped_share": result.clipped})


def total_weight(batch: Experience) -> float:
    """What the sums over a batch are divided by: its action tokens, or its responses."""
    return float(batch.loss_weights[batch.action_mask].double().sum())


def rows_to_probe(rollouts: Sequence[Response], step: int, chunk_size: int) -> NDArray[np.int64]:
    """By which rows a step's sampler is compared with the learner, in the batch's order.

    The longest response, one of each chunk, so of every worker, and of all by length every sixteenth, from first ones
    that move with the step. Whoever sampled which chunk, they are the same: what a step measures does not depend on it.

    Args:
        chunk_size: responses that one worker samples together.
    """
    by_length = sorted(range(len(rollouts)), key=lambda row: -rollouts[row].num_tokens)
    chunks = [range(len(rollouts))[start : start + chunk_size] for start in range(0, len(rollouts), chunk_size)]
    of_chunks = {chunk[step % len(chunk)] for chunk in chunks}
    chosen = {by_length[0], *of_chunks, *by_length[step % PROBED_SHARE :: PROBED_SHARE]}
    return np.array(sorted(chosen))


def compute_logprobs_and_values(
    rank: RankLearner,
    trajectories: Trajectories,
    temperature: float,
    has_critic: bool,
    probed: NDArray[np.int64] | None,
    teachers: Tensor | None = None,
) -> LogprobsAndValues:
    """Log-probs under the policy, the reference and the teachers, and the critic's values, of sampled tokens before the
    update: of the rows that are this rank's.

    Args:
        probed: rows by which the sampler's own log-probs are tried, and taken for the policy's if they hold on all
            ranks. The learner computes them all where they do not, or None are probed.
        teachers: the number of each row's, int64 [B]; None where there are none.
    """
    batch = TrajectoryBatch(trajectories.input_ids, trajectories.attention_mask, trajectories.action_mask, temperature)
    held = None if probed is None else probe(rank, trajectories, batch, probed)
    logprobs, entropies = trajectories.sampler_logprobs, None
    if held is None:
        logprobs, entropies = torch.from_numpy(rank.compute(batch, "policy", forward_with_entropies)).unbind(dim=1)
    return LogprobsAndValues(
        logprobs=logprobs,
        probed=held,
        ref_logprobs=torch.from_numpy(rank.compute(batch, "reference", forward_actions)),
        values=torch.from_numpy(rank.compute(batch, "value", forward_actions)) if has_critic else None,
        graded=None if teachers is None else grade(rank, batch, teachers),
        entropies=entropies,
    )


def grade(rank: RankLearner, batch: "TrajectoryBatch", teachers: Tensor) -> TeacherLogprobs:
    logprobs = rank.compute(replace(batch, teachers=teachers), "teacher", forward_actions)
    return TeacherLogprobs(teachers, torch.from_numpy(logprobs))


def probe(
    rank: RankLearner, trajectories: Trajectories, batch: "TrajectoryBatch", index: NDArray[np.int64]
) -> ComparedRows | None:
    """The learner's own log-probs of these rows; None where a rank's sampler is further off than is trusted."""
    most = int(rank.batch.gather(torch.tensor([len(index)])).max())
    asked = np.resize(index if len(index) else np.zeros(1, np.int64), most)  # As many forwards on every rank.
    logprobs = torch.from_numpy(rank.compute(batch.rows(asked), "policy", forward_actions))
    compared = ComparedRows(index, logprobs[: len(index)])
    largest = largest_gap(sampler_gaps(trajectories, compared), rank.batch)
    return compared if largest <= MAX_TRUSTED_GAP else None  # Not where it is NaN.


@dataclass(frozen=True)
class TrajectoryBatch(Batch):
    """What a forward over trajectories needs: tensors [B, T], the sampling temperature, and each row's teacher [B]."""

    input_ids: Tensor
    attention_mask: Tensor
    action_mask: Tensor
    temperature: float
    teachers: Tensor | None = None

    @property
    def prompts(self) -> Prompts:
        return prompts_before(self.input_ids, self.attention_mask, self.action_mask)


def forward_actions(forward: Any, batch: TrajectoryBatch) -> Tensor:
    asked = batch.input_ids, batch.attention_mask, batch.action_mask, batch.temperature
    result: Tensor = forward(*asked) if batch.teachers is None else forward(*asked, batch.teachers)
    return result


def forward_with_entropies(forward: Any, batch: TrajectoryBatch) -> Tensor:
    """Log-probs and, beside them, entropies [B, 2, T]."""
    found: Tensor = forward(
        batch.input_ids, batch.attention_mask, batch.action_mask, batch.temperature, None, None, True
    )
    return found
