"""The objective of a step: the policy's loss, the critic's where there is one, and the forwards before it."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from plumbob.configs.settings.algorithms import critic_of
from plumbob.configs.settings.training import PpoSettings
from plumbob.data.batch import Batch, Prompts, prompts_before
from plumbob.trainers.algorithms.policy_losses import kl_loss, policy_loss, value_loss
from plumbob.trainers.learner.learner_protocol import Learners, LossSum, Pass
from plumbob.trainers.online.experience import Experience, LogprobsAndValues
from plumbob.trainers.online.trajectories import Trajectories


def ppo_passes(ppo: PpoSettings, temperature: float) -> tuple[Pass[Experience], ...]:
    """The policy's loss and, where the estimator has a critic, its own; weighted means over the optimizer step."""
    policy: Pass[Experience] = Pass("policy", partial(policy_loss_sum, ppo, temperature), total_weight)
    critic = critic_of(ppo.estimator)
    if critic is None:
        return (policy,)
    return (policy, Pass("value", partial(value_loss_sum, critic.value_clip_range, temperature), total_weight))


def policy_loss_sum(ppo: PpoSettings, temperature: float, forward: Any, batch: Experience) -> LossSum:
    """The surrogate, and beta times the KL penalty where it is in the loss."""
    logprobs = forward(batch.input_ids, batch.attention_mask, batch.action_mask, temperature)
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
    result = policy_loss(ppo.policy_loss, logprobs, old, advantages, mask, weights, importance)
    statistics = {"policy_loss": result.loss.detach(), "clipped_share": result.clipped, "update_kl": result.kl}
    if batch.kl is None:
        return LossSum(result.loss, statistics)
    assert ppo.kl.estimate != "k1", "its gradient is zero in expectation"
    reference = batch.kl.ref_logprobs.to(logprobs.device)
    penalty = kl_loss(logprobs, reference, mask, weights, importance, ppo.kl.estimate)
    return LossSum(result.loss + batch.kl.coefficient * penalty, statistics | {"kl_loss": penalty.detach()})


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


def compute_logprobs_and_values(
    learners: Learners, trajectories: Trajectories, temperature: float, has_critic: bool
) -> LogprobsAndValues:
    """The learner's own log-probs, the reference's, and the critic's values of sampled tokens, before the update."""
    batch = TrajectoryBatch(trajectories.input_ids, trajectories.attention_mask, trajectories.action_mask, temperature)
    return LogprobsAndValues(
        logprobs=torch.from_numpy(learners.compute(batch, "policy", forward_actions)),
        ref_logprobs=torch.from_numpy(learners.compute(batch, "reference", forward_actions)),
        values=torch.from_numpy(learners.compute(batch, "value", forward_actions)) if has_critic else None,
    )


@dataclass(frozen=True)
class TrajectoryBatch(Batch):
    """What a forward over trajectories needs: tensors [B, T], and the sampling temperature."""

    input_ids: Tensor
    attention_mask: Tensor
    action_mask: Tensor
    temperature: float

    @property
    def prompts(self) -> Prompts:
        return prompts_before(self.input_ids, self.attention_mask, self.action_mask)


def forward_actions(forward: Any, batch: TrajectoryBatch) -> Tensor:
    result: Tensor = forward(batch.input_ids, batch.attention_mask, batch.action_mask, batch.temperature)
    return result
