"""The trainer's gradient is the enumerated one, and each likely mistake, planted, is far from it."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from configs.objectives import (
    DrGrpo,
    Estimator,
    FixedKl,
    Gae,
    Grpo,
    ReinforcePlusPlus,
    ReinforcePlusPlusBaseline,
    Rloo,
    Shaping,
)
from configs.schema import PpoRun
from configs.stages import Ppo
from console.verify.gradients import (
    enumerated_gradient,
    listed_counts,
    listed_step,
    pulled_back,
    relative_error,
    trainer_gradient,
)
from console.verify.local import open_learner
from console.verify.online import train_online
from console.verify.problem import Problem, Size, make_problem
from console.verify.tree import EOS
from console.verify.world import answer_logprobs
from tests.ranks import Ranks
from trainers.experience import Evaluated
from trainers.ppo_objective import evaluate
from trainers.trajectories import Trajectories, collate_rollouts

HONEST = 1e-3
PLANTED = 0.02
NUM_ANSWERS = 500
"""To each prompt."""
STEPS = 8
"""Updates before the gradient is taken, so that the policy is not the reference."""

IN_REWARD = FixedKl(coefficient=0.4)
IN_LOSS = FixedKl(coefficient=0.4, place="loss", estimate="k3")


def run_of(problem: Problem, estimator: Estimator, kl: FixedKl, **settings: Any) -> PpoRun:
    num_prompts = problem.size.num_prompts
    samples = 1 if isinstance(estimator, Gae | ReinforcePlusPlus) else NUM_ANSWERS
    ppo = Ppo(
        learning_rate=3e-3,
        schedule="linear",
        warmup_fraction=0.0,
        num_steps=STEPS,  # At the last of which, where the gradient is taken, the learning rate is 0.
        prompts_per_step=num_prompts * NUM_ANSWERS // samples,
        samples_per_prompt=samples,
        minibatch_size=num_prompts * NUM_ANSWERS,
        max_grad_norm=1e9,
        estimator=estimator,
        kl=kl,
        shaping=Shaping(clip=None, missing_eos_penalty=0.0),
    )
    return problem.ppo_run(ppo.model_copy(update=settings))


@dataclass(frozen=True)
class Mistake:
    """A trainer that is wrong: other settings, or one of its functions replaced. `Mistake()` is the honest one."""

    settings: Callable[[PpoRun], PpoRun] = lambda run: run
    replaced: tuple[str, Callable[..., Any]] | None = None


def with_ppo(**changes: Any) -> Callable[[PpoRun], PpoRun]:
    return lambda run: run.model_copy(update={"ppo": run.ppo.model_copy(update=changes)})


def hotter(run: PpoRun) -> PpoRun:
    return run.model_copy(update={"rollout": run.rollout.model_copy(update={"temperature": 1.1})})


def wrong_reference(*arguments: Any) -> Evaluated:
    """The policy as its own reference: as if no KL were measured from where it began."""
    evaluated = evaluate(*arguments)
    return replace(evaluated, ref_logprobs=evaluated.logprobs)


def without_eos(*arguments: Any) -> Trajectories:
    """An EOS that is taken for padding: the policy is not taught to end."""
    trajectories = collate_rollouts(*arguments)
    return replace(trajectories, action_mask=trajectories.action_mask & (trajectories.input_ids != EOS))


MISTAKES = {
    "beta 10% too large": Mistake(with_ppo(kl=FixedKl(coefficient=0.44))),
    "gamma 0.95": Mistake(with_ppo(estimator=ReinforcePlusPlus(gamma=0.95))),
    "temperature 1.1": Mistake(hotter),
    "the wrong reference": Mistake(replaced=("evaluate", wrong_reference)),
    "EOS out of the mask": Mistake(replaced=("collate_rollouts", without_eos)),
    "answers weigh the same": Mistake(with_ppo(loss_mean="answer")),
}


def error_of(folder: Path, estimator: Estimator, kl: FixedKl, settings: dict[str, Any], mistake: str | None) -> float:
    """Relative error of the gradient of a trainer that makes a mistake, or none."""
    problem = make_problem(Size(), 0, folder)
    run = run_of(problem, estimator, kl, **settings)
    learners = train_online(run, problem.world, problem.rewards)
    instance = problem.instance(learners)
    counts = listed_counts(answer_logprobs(problem.world, learners.compute, "policy"), NUM_ANSWERS)
    expected = enumerated_gradient(run, instance, problem.world, learners, counts.astype(float))
    answers = listed_step(problem.world, problem.rewards, counts, learners, STEPS)
    planted = MISTAKES[mistake] if mistake else Mistake()
    mistaken = planted.settings(run)
    others = open_learner(mistaken)
    learners.save(folder)
    others.load(folder)
    with mock.patch(f"trainers.ppo.{planted.replaced[0]}", planted.replaced[1]) if planted.replaced else nullcontext():
        found = trainer_gradient(mistaken, problem.world, others, answers)
    return relative_error(found, pulled_back(problem.world, learners, expected))


@pytest.mark.parametrize(
    "estimator, kl, settings",
    [
        (Gae(value_learning_rate=3e-3), IN_REWARD, {}),
        (Gae(gamma=0.9, lam=0.5, whiten=True), IN_REWARD, {}),
        (ReinforcePlusPlus(), IN_REWARD, {}),
        (ReinforcePlusPlus(gamma=0.9), IN_REWARD, {}),
        (ReinforcePlusPlusBaseline(), IN_REWARD, {}),
        (Rloo(), IN_REWARD, {}),
        (Grpo(), IN_REWARD, {}),
        (DrGrpo(), IN_REWARD, {}),
        (Rloo(), IN_LOSS, {}),
        (Grpo(), IN_LOSS, {"loss_mean": "answer"}),
        (DrGrpo(), FixedKl(coefficient=0.4, place="loss", estimate="k2"), {"loss_mean": "answer"}),
    ],
    ids=lambda value: getattr(value, "kind", None) or getattr(value, "place", None) or "-".join(value.values()),
)
def test_the_gradient_is_the_enumerated_one(
    one_rank: Ranks, tmp_path: Path, estimator: Estimator, kl: FixedKl, settings: dict[str, Any]
) -> None:
    assert one_rank.run(error_of, tmp_path, estimator, kl, settings, None)[0] < HONEST


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_far_from_it(one_rank: Ranks, tmp_path: Path, mistake: str) -> None:
    assert one_rank.run(error_of, tmp_path, ReinforcePlusPlus(), IN_REWARD, {}, mistake)[0] > PLANTED
