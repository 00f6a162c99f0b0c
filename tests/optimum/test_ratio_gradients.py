"""Where ratios are not 1, in the second update on a step's responses: gradients of the surrogates by enumeration."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import FixedKl, Rloo
from plumbob.configs.settings.training import OnlineSettings
from plumbob.trainers.learner.learner_protocol import UpdatePlan
from plumbob.trainers.learner.ranks.own_rows import OwnRows
from plumbob.trainers.online.collection.collector import StepResponses
from plumbob.trainers.online.experience import Experience, make_experience
from plumbob.trainers.online.objective import compute_logprobs_and_values
from plumbob.trainers.online.trajectories import collate_rollouts
from plumbob.verify.local_learner import OneRank, open_learner
from plumbob.verify.optima.response_tree import EOS
from plumbob.verify.rows.online_rows import OnlineRow
from plumbob.verify.rows.surrogate_rows import CISPO_ROW, CLIP_HIGHER_ROW, GSPO_ROW
from plumbob.verify.training.gradients import gradient_of, pulled_back, relative_error
from plumbob.verify.training.train_online import train_online
from plumbob.verify.world.problem import UNSHAPED, Size, make_problem
from plumbob.verify.world.tiny_world import response_logprobs
from tests.optimum.online_gradients import (
    enumerated_advantages,
    gradient_with,
    listed_counts,
    listed_step,
    policy_of,
)
from tests.optimum.planted import Bug, Errors, errors_with
from tests.optimum.ratio_bugs import RATIO_BUGS, surrogate_pushes
from tests.optimum.test_gradients import NUM_RESPONSES, STEPS, run_of
from tests.support.learner_ranks import Ranks

MOVED = 2.0
"""Times the learning rate: the update that moves ratios away from 1."""


class Found(NamedTuple):
    """Attributes: errors of the gradient; clipped_share: of the loss's weight, what the honest trainer clipped."""

    errors: Errors
    clipped_share: float


def experience_of(run: OnlineRun, learners: OneRank, responses: StepResponses) -> Experience:
    trajectories = collate_rollouts(responses.rollouts, EOS)
    computed = compute_logprobs_and_values(OwnRows(learners.learner), trajectories, 1.0, False, None)
    scores = torch.tensor([score.total for score in responses.scores])
    beta, limit = run.online.kl.coefficient, run.rollout.max_tokens
    return make_experience(trajectories, scores, computed, run.online, beta, STEPS, limit)[0]


def errors_past_one(folder: Path, size: Size, online: OnlineSettings, bugs: tuple[str, ...]) -> Found:
    """An update on a listed step, then the gradient of the next one on the same experience."""
    problem = make_problem(size, 0, folder)
    run, world = run_of(problem, online), problem.world
    instance = problem.instance()
    learners = train_online(run, world, problem.rewards)
    counts = listed_counts(response_logprobs(world, learners.compute, "policy"), NUM_RESPONSES)
    responses = listed_step(world, problem.rewards, counts, learners, STEPS)
    experience = experience_of(run, learners, responses)
    old = policy_of(world, learners)
    advantages = enumerated_advantages(run, instance, world, learners, counts.astype(float))

    def updated(trained: OneRank, scale: float) -> dict[str, float]:
        return trained.update(experience, UpdatePlan(experience.num_rows, 1, scale, 0)).metrics

    updated(learners, MOVED)
    learners.save(folder)
    now = policy_of(world, learners)
    pushes = surrogate_pushes(run.online.policy_loss, instance.tree, now, old, advantages)
    expected = pulled_back(world, learners, gradient_with(run, instance, now, pushes, counts.astype(float)))
    clipped_share = updated(learners, 0.0)["clipped_share"]

    def error(bug: Bug, _: Path) -> float:
        others = open_learner(bug.settings(run))
        others.load(folder)
        with bug.planted():
            found = gradient_of(others, lambda: updated(others, 0.0))
        return relative_error(found, expected)

    return Found(errors_with(error, RATIO_BUGS, bugs, folder), clipped_share)


@pytest.mark.parametrize("row", [CLIP_HIGHER_ROW, GSPO_ROW, CISPO_ROW], ids=lambda row: row.name)
def test_past_a_ratio_of_one_each_surrogate_has_the_enumerated_gradient_and_no_listed_bug_has(
    one_rank: Ranks, tmp_path: Path, row: OnlineRow
) -> None:
    bugs = tuple(name for name in row.bug_targets if name in RATIO_BUGS)
    found = one_rank.run(errors_past_one, tmp_path, row.size, row.settings(), bugs)[0]
    found.errors.check()
    assert len(bugs) == 2 and 0.05 < found.clipped_share < 0.95


def test_so_has_the_clipped_surrogate_of_one_range(one_rank: Ranks, tmp_path: Path) -> None:
    online = OnlineSettings(estimator=Rloo(), kl=FixedKl(coefficient=Size().beta), shaping=UNSHAPED)
    found = one_rank.run(errors_past_one, tmp_path, Size(), online, ())[0]
    found.errors.check()
    assert 0.05 < found.clipped_share < 0.95
