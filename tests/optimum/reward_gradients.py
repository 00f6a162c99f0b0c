"""The gradient of one step of the reward trainer, and the one that the papers' formulas give by enumeration.

P prompts, K responses, N rankings. By the responses' rewards first, then pulled back through the model itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbob.configs.runs import RewardRun
from plumbob.data.records import Ranking
from plumbob.trainers.offline.reward_modelling.reward_batch import FeedbackRecord, response_rewards
from plumbob.verify.local_learner import OneRank
from plumbob.verify.optima.count_optima import Rankings, plackett_luce_loss
from plumbob.verify.optima.response_tree import Array
from plumbob.verify.training.gradients import gradient_of, trained_parameters
from plumbob.verify.training.kto_gradients import NO_CLIP, NO_RATE
from plumbob.verify.training.train_reward import every_response, ranking, train_feedback
from plumbob.verify.world.tiny_world import TinyWorld


@dataclass(frozen=True)
class Ranked:
    """Rankings as they were given.

    Attributes:
        rankings: responses' indices, best first, [N, size]; of size 2, pairs.
        counts: how often each was given for each prompt, [P, N].
        margins: by how much the first of a pair is said to be better, [P, N].
    """

    rankings: Rankings
    counts: NDArray[np.int64]
    margins: Array

    def records(self, world: TinyWorld) -> list[Ranking]:
        return [
            replace(ranking(world, p, tuple(self.rankings[n].tolist())), margin=float(self.margins[p, n]))
            for p, n in np.argwhere(self.counts)
            for _ in range(self.counts[p, n])
        ]


def one_step(run: RewardRun, num_records: int) -> RewardRun:
    """The run with a single step over all records, whose gradient is read: it is not clipped, and the weights stay."""
    still = {"learning_rate": NO_RATE, "max_grad_norm": NO_CLIP, "batch_size": num_records}
    return run.model_copy(update={"reward_training": run.reward_training.model_copy(update=still)})


def reward_step_gradient(
    run: RewardRun, records: Sequence[FeedbackRecord], learners: OneRank, folder: Path
) -> dict[str, Tensor]:
    """Of the model's parameters, in the trainer's step; `run` is a `one_step`."""
    return gradient_of(learners, lambda: train_feedback(run, records, learners, folder))


def pulled_back_rewards(run: RewardRun, world: TinyWorld, learners: OneRank, by_rewards: Array) -> dict[str, Tensor]:
    """A gradient by the responses' rewards [P, K] as one by the model's parameters."""
    parameters = trained_parameters(learners)
    rewards = response_rewards(learners.learner.model, every_response(run, world))
    weighted = (torch.from_numpy(by_rewards.reshape(-1, 1)).to(rewards) * rewards).sum()
    gradients = torch.autograd.grad(weighted, list(parameters.values()))
    return {name: gradient.double() for name, gradient in zip(parameters, gradients, strict=True)}


def bradley_terry_gradient(pairs: Ranked, flip_rate: float, rewards: Array) -> Array:
    """Of the mean of -log((1 - e) sigmoid(d - m) + e sigmoid(-d - m)), [P, K], d = r(chosen) - r(rejected).

    Bradley and Terry 1952; e: Christiano et al. 2017, arXiv 1706.03741, section 2.2.3; m: Touvron et al. 2023, arXiv
    2307.09288, equation 2.
    """
    gradient = np.zeros_like(rewards)
    chosen, rejected = pairs.rankings.T
    for own, counts, margins, said in zip(gradient, pairs.counts, pairs.margins, rewards, strict=True):
        differences = said[chosen] - said[rejected]
        right, wrong = (1 / (1 + np.exp(margins - order)) for order in (differences, -differences))
        slopes = (1 - flip_rate) * right * (1 - right) - flip_rate * wrong * (1 - wrong)
        pushes = -counts / pairs.counts.sum() * slopes / ((1 - flip_rate) * right + flip_rate * wrong)
        np.add.at(own, chosen, pushes)
        np.subtract.at(own, rejected, pushes)
    return gradient


def plackett_luce_gradient(ranked: Ranked, rewards: Array) -> Array:
    """Of the rankings' mean negative log-likelihood, [P, K] (Plackett 1975)."""
    shares = ranked.counts / ranked.counts.sum()
    return np.stack([plackett_luce_loss(ranked.rankings, *own)[1] for own in zip(shares, rewards, strict=True)])


def regression_gradient(scores: Array, rewards: Array) -> Array:
    """Of the mean of (r - s)^2 / 2 over all responses, [P, K]."""
    gradient: Array = (rewards - scores) / scores.size
    return gradient
