"""The gradient of one step of the trainer of pairs, and the one that the papers' formulas give by enumeration.

P prompts, K responses, S states, V tokens, as in `verify.optima.response_tree`.
"""

from pathlib import Path
from typing import assert_never

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from plumbob.configs.runs import DpoRun
from plumbob.configs.settings.offline_objectives import (
    ConservativeDpoLoss,
    DpoLoss,
    HingeLoss,
    IpoLoss,
    OrpoLoss,
    PreferenceLoss,
    RobustDpoLoss,
    SimpoLoss,
    SppoLoss,
)
from plumbob.verify.local_learner import OneRank
from plumbob.verify.optima.offline_optima import flipped, logistic, orpo_loss, pair_loss, squared
from plumbob.verify.optima.response_tree import Array
from plumbob.verify.training.gradients import by_logits, gradient_of
from plumbob.verify.training.train_offline import train_pairs
from plumbob.verify.world.tiny_world import TinyWorld, response_logprobs


def dpo_step_gradient(
    run: DpoRun, world: TinyWorld, counts: NDArray[np.int64], learners: OneRank, folder: Path
) -> dict[str, Tensor]:
    """Of the policy's parameters, in one step of the trainer over all of `counts` [P, K, K]; `run` has `NO_RATE`."""
    return gradient_of(learners, lambda: train_pairs(run, world, counts, learners, folder))


def dpo_enumerated_gradient(
    world: TinyWorld, counts: NDArray[np.int64], loss: PreferenceLoss, learners: OneRank, reference: Array
) -> Array:
    """Of the mean loss over `counts` [P, K, K] by next-token logits, [P, S, V]; `reference`: log pi_ref [P, K]."""
    policy = response_logprobs(world, learners.compute, "policy")
    by_responses = np.stack(
        [
            wins.sum() / counts.sum() * pairs_gradient(loss, wins, own, ref, world.tree.num_tokens)
            for wins, own, ref in zip(counts.astype(np.float64), policy, reference, strict=True)
        ]
    )
    return by_logits(world, policy, by_responses)


def pairs_gradient(loss: PreferenceLoss, wins: Array, policy: Array, reference: Array, num_tokens: Array) -> Array:
    """Of the mean loss over `wins` [K, K] by log-probs, [K]; papers: `configs.settings.offline_objectives`."""
    u = policy - reference
    match loss:
        case DpoLoss(beta=beta, per_token=per_token):
            parts = num_tokens if per_token else np.ones_like(u)
            return beta * pair_loss(wins, beta * u / parts, logistic())[1] / parts
        case ConservativeDpoLoss(beta=beta, flip_rate=rate):
            return beta * pair_loss(flipped(wins, rate), beta * u, logistic())[1]
        case RobustDpoLoss(beta=beta, flip_rate=rate):
            said, turned = (pair_loss(own, beta * u, logistic())[1] for own in (wins, wins.T))
            return beta * ((1 - rate) * said - rate * turned) / (1 - 2 * rate)
        case IpoLoss(tau=tau, per_token=per_token):
            parts = num_tokens if per_token else np.ones_like(u)
            return pair_loss(wins, u / parts, squared(0.5 / tau))[1] / parts
        case HingeLoss(beta=beta):
            wrong = wins / wins.sum() * (beta * (u[:, None] - u[None, :]) < 1)
            return beta * (wrong.sum(0) - wrong.sum(1))
        case OrpoLoss(weight=weight):
            return orpo_loss(wins, policy, num_tokens, weight)[1]
        case SimpoLoss(beta=beta, margin=margin):
            return beta * pair_loss(wins, beta * policy / num_tokens, logistic(margin))[1] / num_tokens
        case SppoLoss(beta=beta):
            t = 0.5 / beta
            return 2 * ((u - t) * wins.sum(1) + (u + t) * wins.sum(0)) / wins.sum()
        case _:
            assert_never(loss)
