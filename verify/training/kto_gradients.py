"""The gradient of one step of KTO, and the one that its paper's formula gives by enumeration."""

from pathlib import Path

import numpy as np
from torch import Tensor

from plumbob.configs.runs import KtoRun
from plumbob.data.epoch_order import EpochBatches
from plumbob.verify.local_learner import OneRank
from plumbob.verify.optima.offline_optima import kto_gradient
from plumbob.verify.optima.response_tree import Array
from plumbob.verify.training.gradients import by_logits, gradient_of
from plumbob.verify.training.train_offline import Labels, train_labelled
from plumbob.verify.world.tiny_world import TinyWorld, response_logprobs

NO_RATE = 1e-12
"""Learning rate of a step whose gradient is read: the weights stay. Such a run clips no gradients."""
NO_CLIP = 1e6


def kto_step_gradient(
    run: KtoRun, world: TinyWorld, labels: Labels, learners: OneRank, folder: Path
) -> dict[str, Tensor]:
    """Of the policy's parameters, in one step of the trainer over all the labels; `run` has `NO_RATE`."""
    return gradient_of(learners, lambda: train_labelled(run, world, labels, learners, folder))


def kto_enumerated_gradient(
    run: KtoRun, world: TinyWorld, labels: Labels, learners: OneRank, reference: Array
) -> Array:
    """Of KTO's mean loss over all the labels by next-token logits, [P, S, V]."""
    policy = response_logprobs(world, learners.compute, "policy")
    log_ratios = policy - reference
    num_records = len(labels.responses)
    good = run.kto.desirable_weight * labels.desirable / num_records
    bad = run.kto.undesirable_weight * labels.undesirable / num_records
    reference_point = kto_reference_point(log_ratios, labels, run.seed)
    return by_logits(world, policy, kto_gradient(log_ratios, good, bad, run.kto.beta, reference_point))


def kto_reference_point(log_ratios: Array, labels: Labels, seed: int) -> float:
    """z0: the mean of u [P, K] of each record's prompt with the next record's response, in the trainer's order."""
    num_records = len(labels.responses)
    order = EpochBatches(num_records, num_records, 1, seed).batch_at(0)
    prompts, responses = np.divmod(labels.responses[order], log_ratios.shape[1])
    return max(0.0, float(log_ratios[prompts, np.roll(responses, -1)].mean()))
