"""Distillation by enumeration: the gradient of each form, what peers got wrong, and that it ends at the teacher."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from plumbob.configs.runs import OnlineRun
from plumbob.models.forward.vocabulary import Measure, Vocabulary, _kl_to
from plumbob.trainers.distillation.teachers import teacher_numbers
from plumbob.trainers.online.experience import TeacherLogprobs
from plumbob.trainers.online.objective import forward_actions, grade
from plumbob.verify.local_learner import open_learner
from plumbob.verify.optima.distillation_optima import grades, likeliest_alone, state_kl, whole_kl_gradient
from plumbob.verify.optima.online_optima import step_gradient
from plumbob.verify.optima.response_tree import Array, Instance, ResponseTree, kl, log_normalised, single_token_prompts
from plumbob.verify.rows.distillation_rows import DISTILLATION_ROWS, DistillationRow, make_lesson
from plumbob.verify.training.gradients import pulled_back, relative_error
from plumbob.verify.training.train_online import train_online
from plumbob.verify.world.problem import Measurement, Size
from plumbob.verify.world.tiny_world import response_logprobs
from tests.optimum.online_gradients import listed_counts, listed_step, policy_of, trainer_gradient
from tests.optimum.planted import Bug, Errors, errors_with
from tests.optimum.test_gradients import NUM_RESPONSES, STEPS, without_eos
from tests.support.learner_ranks import Ranks

TREE = ResponseTree(3, 2)


def drawn(seed: int) -> Array:
    return log_normalised(np.random.default_rng(seed).normal(size=(2, len(TREE.states), 3)))


POLICY, TEACHER = drawn(0), drawn(1)
PROBS = np.exp(TREE.response_logprobs(POLICY))
INSTANCE = Instance(TREE, single_token_prompts(TREE, 2), np.log(PROBS), np.zeros_like(PROBS), 1.0)


# ------------------------------------------------------------------------------------------------- enumerated, by hand


def test_the_expected_gradient_of_sampled_tokens_is_that_of_the_whole_kl() -> None:
    pushes = grades(TREE, POLICY, TEACHER, gamma=0.0)
    sampled = step_gradient(INSTANCE, POLICY, pushes, PROBS, length_weighted=False)
    whole = whole_kl_gradient(TREE, POLICY, TEACHER, PROBS)
    assert np.abs(whole).max() > 0.05
    np.testing.assert_allclose(sampled, whole, atol=1e-15)


def test_with_what_follows_it_is_that_of_whole_responses() -> None:
    # d/dlogits of sum over prompts of KL(pi(y) || q(y)), over the expected number of tokens, by central differences.
    pushes = grades(TREE, POLICY, TEACHER, gamma=1.0)
    found = step_gradient(INSTANCE, POLICY, pushes, PROBS, length_weighted=False)
    num_tokens = (PROBS * TREE.num_tokens).sum()

    def divergence(policy: Array) -> float:
        return float(kl(TREE.response_logprobs(policy), TREE.response_logprobs(TEACHER)).sum() / num_tokens)

    numbers = np.zeros_like(POLICY)
    for place in np.ndindex(POLICY.shape):
        step = np.zeros_like(POLICY)
        step[place] = 1e-5
        ahead, behind = (divergence(log_normalised(POLICY + sign * step)) for sign in (1, -1))
        numbers[place] = (ahead - behind) / 2e-5
    np.testing.assert_allclose(found, numbers, atol=1e-9)
    assert np.abs(found - whole_kl_gradient(TREE, POLICY, TEACHER, PROBS)).max() > 0.02


def test_the_kl_as_an_advantage_teaches_nothing() -> None:
    # Of a state, whichever token was drawn there: sum_a p_a KL grad log p_a = KL grad 1 = 0. Of few tokens alike.
    two = likeliest_alone(TEACHER, 2)
    of_two = np.where(np.isfinite(two), np.exp(POLICY) * (POLICY - TEACHER), 0.0).sum(-1)
    for divergence in (state_kl(POLICY, TEACHER), of_two):
        pushes = -TREE.along(np.repeat(divergence[..., None], 3, axis=-1))
        gradient = step_gradient(INSTANCE, POLICY, pushes, PROBS, length_weighted=False)
        assert np.abs(pushes).max() > 0.1 and np.abs(gradient).max() < 1e-16


def test_grades_by_hand() -> None:
    # A response of tokens 1 and EOS: log-ratios at the states () and (1,).
    k = TREE.responses.index((1, 0))
    first, second = (TEACHER - POLICY)[1, 0, 1], (TEACHER - POLICY)[1, TREE.states.index((1,)), 0]
    assert grades(TREE, POLICY, TEACHER, 0.5)[1, k] == pytest.approx([first + 0.5 * second, second])
    assert np.exp(likeliest_alone(np.log([[[0.5, 0.2, 0.3]]]), 2)) == pytest.approx(np.array([[[0.625, 0, 0.375]]]))
    assert state_kl(np.log([[[0.5, 0.5]]]), np.log([[[0.25, 0.75]]]))[0, 0] == pytest.approx(0.5 * np.log(4 / 3))


# ------------------------------------------------------------------------------------------------- the trainer's own


def measured_as(slopes: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Any:
    """Another loss of (log p, log q) in the place of KL(p || q): its value, and its slope by p's logits."""

    def replaced(other: Vocabulary, hidden: Tensor, temperature: float) -> Measure:
        def measure(rows: slice, log_softmax: Tensor, needs_slope: bool) -> tuple[Tensor, Tensor | None]:
            return slopes(log_softmax, other.log_softmax(hidden[rows], temperature))

        return measure

    return replaced


def forward_kl(own: Tensor, its: Tensor) -> tuple[Tensor, Tensor]:
    return (its.exp() * (its - own)).sum(-1), own.exp() - its.exp()


def forward_kl_of_two(own: Tensor, its: Tensor) -> tuple[Tensor, Tensor]:
    kept = torch.where(its >= its.topk(2).values[..., -1:], its.exp(), 0.0)
    return (kept * (its - own)).sum(-1), own.exp() * kept.sum(-1, keepdim=True) - kept


def late(other: Vocabulary, hidden: Tensor, temperature: float) -> Measure:
    return _kl_to(other, hidden.roll(1, 0), temperature)


def sharper(other: Vocabulary, hidden: Tensor, temperature: float) -> Measure:
    return _kl_to(other, hidden, temperature / 1.1)


def graded(change: Callable[..., Tensor]) -> Any:
    def replaced(learners: Any, batch: Any, teachers: Tensor) -> TeacherLogprobs:
        return TeacherLogprobs(teachers, change(learners, batch, teachers))

    return replaced


def late_grades(learners: Any, batch: Any, teachers: Tensor) -> Tensor:
    return grade(learners, batch, teachers).logprobs.roll(1, 1)


def sharper_grades(learners: Any, batch: Any, teachers: Tensor) -> Tensor:
    return grade(learners, replace(batch, temperature=batch.temperature / 1.1), teachers).logprobs


def own_logprobs(learners: Any, batch: Any) -> Tensor:
    return torch.from_numpy(learners.compute(batch, "policy", forward_actions))


def opposite_grades(learners: Any, batch: Any, teachers: Tensor) -> Tensor:
    return 2 * own_logprobs(learners, batch) - grade(learners, batch, teachers).logprobs


def kl_grades(learners: Any, batch: Any, teachers: Tensor) -> Tensor:
    """So that the advantage is the KL over all words at the state, whichever token was drawn."""
    return own_logprobs(learners, batch) - own_logprobs(learners, replace(batch, teachers=teachers))


def kl_of_two(own: Tensor, its: Tensor) -> tuple[Tensor, Tensor]:
    kept = its >= its.topk(2).values[..., -1:]
    return torch.where(kept, own.exp() * (own - its), 0.0).sum(-1), torch.zeros_like(own)


def kl_of_two_grades(learners: Any, batch: Any, teachers: Tensor) -> Tensor:
    """The same over the teacher's two likeliest tokens."""
    with mock.patch(KL_TO, measured_as(kl_of_two)):
        return kl_grades(learners, batch, teachers)


def exchanged(run: OnlineRun, *arguments: Any) -> Tensor:
    numbers = teacher_numbers(run, *arguments)
    assert numbers is not None
    return 1 - numbers


KL_TO, GRADE = "plumbob.models.forward.vocabulary._kl_to", "plumbob.trainers.online.objective.grade"
COLLATE = "plumbob.trainers.online.ranks.rank_step.collate_rollouts"
SHARED = {"EOS out of the mask": Bug(replaced=(COLLATE, without_eos))}
BUGS: Mapping[str, Mapping[str, Bug]] = {
    "full": {
        **SHARED,
        "the teacher's logits 10% too large": Bug(replaced=(KL_TO, sharper)),
        "the teacher a token late": Bug(replaced=(KL_TO, late)),
        "the forward KL": Bug(replaced=(KL_TO, measured_as(forward_kl))),
        "the forward KL over the teacher's two likeliest tokens, not renormalised": Bug(
            replaced=(KL_TO, measured_as(forward_kl_of_two))
        ),
        "teachers exchanged": Bug(replaced=("plumbob.trainers.online.online_loop.teacher_numbers", exchanged)),
    },
    "sampled": {
        **SHARED,
        "the teacher's logits 10% too large": Bug(replaced=(GRADE, graded(sharper_grades))),
        "the teacher a token late": Bug(replaced=(GRADE, graded(late_grades))),
        "the log-ratio the other way around": Bug(replaced=(GRADE, graded(opposite_grades))),
        "the KL over the vocabulary as the advantage": Bug(replaced=(GRADE, graded(kl_grades))),
        "the KL over the teacher's two likeliest tokens as the advantage": Bug(
            replaced=(GRADE, graded(kl_of_two_grades))
        ),
    },
}


def errors_of(folder: Path, row: DistillationRow) -> Errors:
    """At one policy and on one listed step, for the honest trainer and for each bug that the row lists."""
    lesson = make_lesson(row.size, row.num_teachers, 0, folder)
    problem, tree = lesson.problem, lesson.problem.world.tree
    run = lesson.run(listed_settings(row))
    learners = train_online(run, problem.world, problem.rewards, lesson.rows)
    learners.save(folder)
    counts = listed_counts(response_logprobs(problem.world, learners.compute, "policy"), NUM_RESPONSES)
    policy, teacher = policy_of(problem.world, learners), tree.next_token_logprobs(lesson.target)
    if row.estimator.form == "full":
        by_logits = whole_kl_gradient(tree, policy, teacher, counts.astype(float))
    else:
        pushes = grades(tree, policy, teacher, row.estimator.gamma)
        by_logits = step_gradient(lesson.instance, policy, pushes, counts.astype(float), length_weighted=False)
    expected = pulled_back(problem.world, learners, by_logits)
    responses = replace(listed_step(problem.world, problem.rewards, counts, learners, STEPS), rows=lesson.rows)

    def error(bug: Bug, _: Path) -> float:
        others = open_learner(bug.settings(run))
        others.load(folder)
        with bug.planted():
            found = trainer_gradient(bug.settings(run), problem.world, others, responses)
        return relative_error(found, expected)

    return errors_with(error, BUGS[row.estimator.form], row.bug_targets, folder)


def listed_settings(row: DistillationRow) -> Any:
    """A few updates, at the last of which, where the gradient is taken, the learning rate is 0."""
    num_samples = row.size.num_prompts * NUM_RESPONSES
    changes = {
        "warmup_fraction": 0.0,
        "num_steps": STEPS,
        "prompts_per_step": num_samples,
        "minibatch_size": num_samples,
        "max_grad_norm": 1e9,
    }
    return row.settings().model_copy(update=changes)


@pytest.mark.parametrize("row", DISTILLATION_ROWS, ids=lambda row: row.setting)
def test_each_row_has_the_enumerated_gradient_and_no_listed_bug_has(
    one_rank: Ranks, tmp_path: Path, row: DistillationRow
) -> None:
    one_rank.run(errors_of, tmp_path, row)[0].check()


def checks_of(folder: Path, row: DistillationRow) -> tuple[Measurement, ...]:
    return replace(row, size=Size(depth=2), num_steps=60).measure(0, folder)


@pytest.mark.parametrize("row", DISTILLATION_ROWS, ids=lambda row: row.setting)
def test_the_policy_ends_at_its_teacher(one_rank: Ranks, tmp_path: Path, row: DistillationRow) -> None:
    checks = one_rank.run(checks_of, tmp_path, row)[0]
    assert len(checks) == 3 and all(check.holds for check in checks), checks


def moves_of(folder: Path, row: DistillationRow) -> dict[str, float | None]:
    return dict(row.bug_shifts(0, folder))


def test_a_row_says_what_moves_its_target(one_rank: Ranks, tmp_path: Path) -> None:
    moves = one_rank.run(moves_of, tmp_path, DISTILLATION_ROWS[-1])[0]
    assert moves["the forward KL"] == 0.0 and moves["the teacher a token late"] is None
    exchange, sharpened = moves["teachers exchanged"], moves["the teacher's logits 10% too large"]
    assert exchange is not None and sharpened is not None and 0.005 < sharpened < 0.1 < exchange
