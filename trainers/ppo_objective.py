"""The objective of PPO: the clipped policy loss and the clipped value loss, and the forwards before an update."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.objectives import Gae
from configs.stages import Ppo
from trainers.experience import Evaluated, Experience, Trajectories
from trainers.learners import Learners, LossSum, Pass
from trainers.losses import ppo_policy_loss, value_loss


def ppo_passes(ppo: Ppo, temperature: float) -> tuple[Pass[Experience], ...]:
    """The clipped policy loss and the clipped value loss, each a mean over all action tokens of the optimizer step."""
    assert isinstance(ppo.estimator, Gae)
    value_clip_range = ppo.estimator.value_clip_range

    def policy_loss_sum(forward: Any, batch: Experience) -> LossSum:
        logprobs = forward(batch.input_ids, batch.attention_mask, batch.action_mask, temperature)
        old, advantages, mask, weights = (
            x.to(logprobs.device)
            for x in (batch.old_logprobs, batch.advantages, batch.action_mask, batch.importance_weights)
        )
        result = ppo_policy_loss(logprobs, old, advantages, mask, ppo.clip_range, ppo.dual_clip, weights)
        statistics = {"policy_loss": result.loss.detach(), "clipped_share": result.num_clipped, "update_kl": result.kl}
        return LossSum(result.loss, statistics)

    def value_loss_sum(forward: Any, batch: Experience) -> LossSum:
        values = forward(batch.input_ids, batch.attention_mask, batch.action_mask, temperature)
        old, returns, mask = (x.to(values.device) for x in (batch.values, batch.returns, batch.action_mask))
        result = value_loss(values, old, returns, mask, value_clip_range)
        return LossSum(result.loss, {"value_loss": result.loss.detach(), "value_clipped_share": result.num_clipped})

    def num_actions(batch: Experience) -> float:
        return float(batch.action_mask.sum())

    return (Pass("policy", policy_loss_sum, num_actions), Pass("value", value_loss_sum, num_actions))


def evaluate(learners: Learners, trajectories: Trajectories, temperature: float) -> Evaluated:
    """The learner's own log-probs, the reference's, and the critic's values of sampled tokens, before the update."""
    batch = TrajectoryBatch(trajectories.input_ids, trajectories.attention_mask, trajectories.action_mask, temperature)
    return Evaluated(
        logprobs=torch.from_numpy(learners.compute(batch, "policy", forward_actions)),
        ref_logprobs=torch.from_numpy(learners.compute(batch, "reference", forward_actions)),
        values=torch.from_numpy(learners.compute(batch, "value", forward_actions)),
    )


@dataclass(frozen=True)
class TrajectoryBatch:
    """What a forward over trajectories needs: tensors [B, T], and the sampling temperature."""

    input_ids: Tensor
    attention_mask: Tensor
    action_mask: Tensor
    temperature: float

    @property
    def num_rows(self) -> int:
        return len(self.input_ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.attention_mask.sum(dim=1).numpy()

    def rows(self, index: Any, /) -> "TrajectoryBatch":
        return TrajectoryBatch(
            self.input_ids[index], self.attention_mask[index], self.action_mask[index], self.temperature
        )


def forward_actions(forward: Any, batch: TrajectoryBatch) -> Tensor:
    result: Tensor = forward(batch.input_ids, batch.attention_mask, batch.action_mask, batch.temperature)
    return result
