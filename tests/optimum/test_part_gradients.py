"""GDPO: parts standardised in their groups have the enumerated gradient; what may go wrong with them has another."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import ReinforcePlusPlusBaseline
from plumbob.configs.settings.reward_parts import ModelPart
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.configs.settings.rules.reward_rules import LengthRule
from plumbob.configs.settings.training import OnlineSettings
from plumbob.reward.scorer import Score
from plumbob.trainers.algorithms.advantages import group_standardised, standardised_parts
from plumbob.trainers.online.collection.collector import StepResponses
from plumbob.trainers.online.part_rewards import CombinedScores, combined_scores
from plumbob.verify.local_learner import open_learner
from plumbob.verify.optima.response_tree import Array, seeded_rewards
from plumbob.verify.training.gradients import pulled_back, relative_error
from plumbob.verify.training.train_online import train_online
from plumbob.verify.world.problem import UNSHAPED, Size, make_problem
from plumbob.verify.world.tiny_world import response_logprobs
from tests.optimum.online_gradients import enumerated_gradient, listed_counts, listed_step, trainer_gradient
from tests.optimum.planted import Bug, Errors, errors_with
from tests.optimum.test_gradients import IN_REWARD, NUM_RESPONSES, STEPS, run_of
from tests.support.learner_ranks import Ranks

WEIGHTS = {"task": 1.0, "wide": 0.5, "gate": 0.0}
PARTS = (
    ModelPart(model="-", name="task", weight=WEIGHTS["task"]),
    ModelPart(model="-", name="wide", weight=WEIGHTS["wide"]),
    LengthRule(max=1, name="gate", weight=WEIGHTS["gate"], is_gate=True),
)
"""Nobody opens them: the scores are given."""


def values_of(num_prompts: int, task: Array, tree: Any) -> Mapping[str, Array]:
    """part -> its values, [P, K]: one a hundred times as wide as the other, and a gate that a quarter does not pass."""
    wide = 100 * seeded_rewards(tree, num_prompts, seed=7)
    return {"task": task, "wide": wide, "gate": (seeded_rewards(tree, num_prompts, seed=8) > -0.5).astype(float)}


def standard_scores(values: Mapping[str, Array], counts: Array, eps: float = 1e-4) -> Array:
    """Sum over parts of w (v - mean) / (std + eps) of a prompt's responses, each drawn `counts` times, [P, K]."""
    total = np.zeros_like(counts)
    size = counts.sum(1, keepdims=True)
    for name, value in values.items():
        kept = value * (values["gate"] != 0)
        centred = kept - (counts * kept).sum(1, keepdims=True) / size
        std = np.sqrt((counts * centred**2).sum(1, keepdims=True) / (size - 1))
        total += WEIGHTS[name] * centred / (std + eps)
    return total


def of_the_sum(values: Tensor, weights: Tensor, has_action: Tensor, groups: Tensor) -> Tensor:
    """The weighted sum is standardised, instead of each part."""
    total = (weights[:, None] * values).sum(0)
    found = torch.zeros_like(values)
    found[0] = group_standardised(total[:, None], has_action[:, None], groups, 1e-4)[:, 0]
    return found


def of_the_batch(values: Tensor, weights: Tensor, has_action: Tensor, groups: Tensor) -> Tensor:
    """Among the responses to all prompts."""
    return standardised_parts(values, weights, has_action, torch.zeros_like(groups))


def without_weights(values: Tensor, weights: Tensor, has_action: Tensor, groups: Tensor) -> Tensor:
    return standardised_parts(values, (weights != 0).float(), has_action, groups)


def without_gate(run: OnlineRun, scores: Sequence[Score], *rest: Any) -> CombinedScores:
    """Every response passes it."""
    return combined_scores(run, [Score(one.total, {**one.parts, "gate": 1.0}) for one in scores], *rest)


def gated_afterwards(run: OnlineRun, scores: Sequence[Score], *rest: Any) -> CombinedScores:
    """What a gate stops gets the mean of its group, instead of values of 0 among the others."""
    found = without_gate(run, scores, *rest)
    is_open = torch.tensor([score.parts["gate"] != 0 for score in scores])
    return CombinedScores(found.totals * is_open, found.standardised)


STANDARDISED = "plumbob.trainers.online.part_rewards.standardised_parts"
COMBINED = "plumbob.trainers.online.online_loop.combined_scores"
BUGS = {
    "the sum standardised": Bug(replaced=(STANDARDISED, of_the_sum)),
    "over the batch": Bug(replaced=(STANDARDISED, of_the_batch)),
    "weights left out": Bug(replaced=(STANDARDISED, without_weights)),
    "the gate left out": Bug(replaced=(COMBINED, without_gate)),
    "the gate after standardising": Bug(replaced=(COMBINED, gated_afterwards)),
}


def with_parts(responses: StepResponses, values: Mapping[str, Array], counts: Array) -> StepResponses:
    """The listed step with the parts' values; the totals are the weighted sums."""
    scores = []
    for prompt, response in np.ndindex(counts.shape):
        parts = {name: float(value[prompt, response]) for name, value in values.items()}
        total = sum(WEIGHTS[name] * value for name, value in parts.items()) if parts["gate"] else 0.0
        scores += [Score(total, parts)] * int(counts[prompt, response])
    return replace(responses, scores=tuple(scores))


def errors_of(folder: Path) -> Errors:
    """At one policy and on one listed step, for the honest trainer and for each bug."""
    problem = make_problem(Size(), 0, folder)
    world = problem.world
    online = OnlineSettings(estimator=ReinforcePlusPlusBaseline(), kl=IN_REWARD, shaping=UNSHAPED)
    begun = run_of(problem, online)
    learners = train_online(begun, world, problem.rewards)
    learners.save(folder)
    counts = listed_counts(response_logprobs(world, learners.compute, "policy"), NUM_RESPONSES)
    values = values_of(problem.size.num_prompts, problem.rewards, world.tree)
    run = begun.model_copy(
        update={
            "online": begun.online.model_copy(update={"combine_parts": "standardised"}),
            "reward": ScorerSettings(parts=PARTS),
        }
    )
    instance = replace(problem.instance(), rewards=standard_scores(values, counts.astype(float)))
    by_logits = enumerated_gradient(run, instance, world, learners, counts.astype(float))
    expected = pulled_back(world, learners, by_logits)
    responses = with_parts(listed_step(world, problem.rewards, counts, learners, STEPS), values, counts)

    def error(bug: Bug, _: Path) -> float:
        others = open_learner(run)
        others.load(folder)
        with bug.planted():
            found = trainer_gradient(run, world, others, responses)
        return relative_error(found, expected)

    return errors_with(error, BUGS, BUGS, folder)


def test_parts_in_their_groups_have_the_enumerated_gradient_and_no_bug_has(one_rank: Ranks, tmp_path: Path) -> None:
    one_rank.run(errors_of, tmp_path)[0].check()
