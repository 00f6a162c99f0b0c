"""Whether the model and its adapter can be the best policy at all: fitted to it by exact cross-entropy.

No row of the table means anything before that: a policy that cannot be reached would be called a wrong trainer.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plumbob.configs.runs import OnlineRun
from plumbob.data.batch import Batch
from plumbob.trainers.learner.learner import Learner
from plumbob.trainers.learner.learner_protocol import LossSum, LossTerm, UpdatePlan
from plumbob.trainers.learner.lr_schedule import learning_rate_scale
from plumbob.trainers.online.objective import TrajectoryBatch
from plumbob.verify.local_learner import OneRank, open_learner
from plumbob.verify.optima.response_tree import Array, total_variation
from plumbob.verify.world.tiny_world import TinyWorld, every_response, response_logprobs


@dataclass(frozen=True)
class WeightedResponses(Batch):
    """Responses with what each one's log-probability counts, float32 [B]."""

    responses: TrajectoryBatch
    weights: Tensor


def cross_entropy(forward: Any, batch: WeightedResponses) -> LossSum:
    """-sum_y pi*(y | x) log pi(y | x)."""
    responses = batch.responses
    logprobs = forward(responses.input_ids, responses.attention_mask, responses.action_mask, 1.0)
    return LossSum(-(batch.weights[:, None] * logprobs * responses.action_mask).sum(), {})


def fitted_distance(run: OnlineRun, world: TinyWorld, optimum: Array) -> float:
    """Largest total variation from `optimum` [P, K], over prompts, that exact cross-entropy leaves."""
    built = open_learner(run).learner
    loss_terms = (LossTerm("policy", cross_entropy, lambda _: float(len(world.prompts))),)
    learners = OneRank(Learner(built.model, loss_terms, built.engine, built.artifact, built.rank, built.settings))
    batch = WeightedResponses(every_response(world), torch.from_numpy(np.exp(optimum).ravel()).float())
    for step in range(run.online.num_steps):
        scale = learning_rate_scale(run.online, step, run.online.num_steps)
        learners.update(batch, UpdatePlan(batch.num_rows, 1, scale, step))
    return float(total_variation(response_logprobs(world, learners.compute, "policy"), optimum).max())
