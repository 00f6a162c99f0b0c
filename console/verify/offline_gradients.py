"""The gradient of one step of the offline trainers, and the one that the papers' formulas give by enumeration.

P prompts, K answers, S states, V tokens, as in `console.verify.tree`.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from configs.schema import DpoRun, KtoRun
from console.verify.gradients import gradient_of
from console.verify.local import OneRank
from console.verify.offline import train_labelled, train_pairs
from console.verify.optima_offline import kto_gradient, logistic, pair_loss
from console.verify.tree import Array
from console.verify.world import World, answer_logprobs
from data.order import EpochBatches

NO_RATE = 1e-12
"""Learning rate of a step whose gradient is read: the weights stay. Such a run clips no gradients."""
NO_CLIP = 1e9


def dpo_step_gradient(
    run: DpoRun, world: World, counts: NDArray[np.int64], learners: OneRank, folder: Path
) -> dict[str, Tensor]:
    """Of the policy's parameters, in one step of the trainer over all of `counts` [P, K, K]; `run` has `NO_RATE`."""
    return gradient_of(learners, lambda: train_pairs(run, world, counts, learners, folder))


def dpo_enumerated_gradient(world: World, counts: NDArray[np.int64], beta: float, learners: OneRank) -> Array:
    """Of DPO's mean loss over `counts` [P, K, K] by next-token logits, [P, S, V]: z = beta (u_i - u_j)."""
    policy = answer_logprobs(world, learners.compute, "policy")
    log_ratios = policy - answer_logprobs(world, learners.compute, "reference")
    by_answers = np.stack(
        [
            own.sum() / counts.sum() * beta * pair_loss(own.astype(np.float64), beta * ratios, logistic())[1]
            for own, ratios in zip(counts, log_ratios, strict=True)
        ]
    )
    return by_logits(world, policy, by_answers)


def kto_step_gradient(
    run: KtoRun, world: World, desirable: NDArray[np.int64], num_labels: int, learners: OneRank, folder: Path
) -> dict[str, Tensor]:
    """Of the policy's parameters, in one step of the trainer over all the labels; `run` has `NO_RATE`."""
    return gradient_of(learners, lambda: train_labelled(run, world, desirable, num_labels, learners, folder))


def kto_enumerated_gradient(
    run: KtoRun, world: World, desirable: NDArray[np.int64], num_labels: int, learners: OneRank
) -> Array:
    """Of KTO's mean loss over all the labels by next-token logits, [P, S, V].

    z0 is the mean of u of each record's prompt with the next record's answer, in the trainer's order.
    """
    policy = answer_logprobs(world, learners.compute, "policy")
    log_ratios = policy - answer_logprobs(world, learners.compute, "reference")
    num_records = desirable.size * num_labels
    order = EpochBatches(num_records, num_records, 1, run.seed).batch_at(0) // num_labels
    prompts, answers = np.divmod(order, desirable.shape[1])
    reference_point = max(0.0, float(log_ratios[prompts, np.roll(answers, -1)].mean()))
    good = run.kto.desirable_weight * desirable / num_records
    bad = run.kto.undesirable_weight * (num_labels - desirable) / num_records
    return by_logits(world, policy, kto_gradient(log_ratios, good, bad, run.kto.beta, reference_point))


def by_logits(world: World, policy: Array, by_answers: Array) -> Array:
    """A gradient by answers' log-probs [P, K] as one by next-token logits, [P, S, V]; `policy`: log pi(y | x)."""
    tree = world.tree
    return tree.logit_gradient(tree.next_token_logprobs(policy), by_answers[..., None])
