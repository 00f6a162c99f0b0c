"""In each online row the trainer's gradient is the enumerated one, and each bug listed there is far from it."""

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import (
    GROUPED,
    DrGrpo,
    Estimator,
    FixedKl,
    Gae,
    Grpo,
    OverlongPenaltySettings,
    PolicyLoss,
    ReinforcePlusPlus,
    ReinforcePlusPlusBaseline,
    Rloo,
)
from plumbob.configs.settings.training import OnlineSettings
from plumbob.models.adapter import ModelRole
from plumbob.models.policy import PolicyModel
from plumbob.trainers.algorithms.advantages import Estimate, estimate
from plumbob.trainers.algorithms.policy_losses import PolicyLossSums, Surrogate, policy_loss
from plumbob.trainers.online.experience import LogprobsAndValues
from plumbob.trainers.online.objective import compute_logprobs_and_values
from plumbob.trainers.online.trajectories import Trajectories, collate_rollouts
from plumbob.verify.local_learner import open_learner
from plumbob.verify.optima.response_tree import EOS
from plumbob.verify.rows.online_rows import CRITIC_FREE_ROWS, LOSS_ROWS, PPO_ROW, OnlineRow, k_in_loss
from plumbob.verify.rows.surrogate_rows import OVERLONG, SURROGATE_ROWS
from plumbob.verify.training.gradients import pulled_back, relative_error
from plumbob.verify.training.train_online import train_online
from plumbob.verify.world.problem import UNSHAPED, Problem, Size, make_problem
from plumbob.verify.world.tiny_world import response_logprobs
from tests.optimum.online_gradients import enumerated_gradient, listed_counts, listed_step, trainer_gradient
from tests.optimum.planted import HONEST, Bug, Errors, errors_with
from tests.optimum.ratio_bugs import LOSSES, RATIO_BUGS, with_online
from tests.support.learner_ranks import Ranks
from tests.unit.trainers.algorithms.test_advantages import left_out_by_mean_of_squares

NUM_RESPONSES = 100
"""To each prompt."""
STEPS = 8
"""Updates before the gradient is taken, so that the policy is not the reference."""

ROWS = (PPO_ROW, *CRITIC_FREE_ROWS, *LOSS_ROWS, *SURROGATE_ROWS)
"""Those of 400 responses and of the whole pipeline are RLOO as the second, which `test_planted_bugs.py` holds."""

IN_REWARD = FixedKl(coefficient=Size().beta)
EARLY = UNSHAPED.model_copy(update={"overlong_penalty": OVERLONG.model_copy(update={"cache_tokens": Size().depth})})
K2_IN_LOSS, K3_IN_LOSS = k_in_loss(Size(), "k2"), k_in_loss(Size(), "k3")


def stronger(run: OnlineRun) -> OnlineRun:
    kl = run.online.kl
    return with_online(run, kl=kl.model_copy(update={"coefficient": 1.1 * kl.coefficient}))


def discounted(run: OnlineRun) -> OnlineRun:
    return with_online(run, estimator=run.online.estimator.model_copy(update={"gamma": 0.95}))


def hotter(run: OnlineRun) -> OnlineRun:
    return run.model_copy(update={"rollout": run.rollout.model_copy(update={"temperature": 1.1})})


def weighed(run: OnlineRun) -> OnlineRun:
    return with_online(run, loss_mean="response")


def counted(run: OnlineRun) -> OnlineRun:
    return with_online(run, loss_mean="token")


role_of = PolicyModel.role


def role_of_policy(model: PolicyModel, role: ModelRole) -> AbstractContextManager[None]:
    """A reference that is trained along."""
    return role_of(model, "policy" if role == "reference" else role)


def wrong_reference(*arguments: Any) -> LogprobsAndValues:
    """The policy as its own reference: as if no KL were measured from where it began."""
    computed = compute_logprobs_and_values(*arguments)
    return replace(computed, ref_logprobs=computed.logprobs)


def without_eos(*arguments: Any) -> Trajectories:
    """An EOS that is taken for padding: the policy is not taught to end."""
    trajectories = collate_rollouts(*arguments)
    return replace(trajectories, action_mask=trajectories.action_mask & (trajectories.input_ids != EOS))


def with_cut_ones(
    estimator: Estimator, rewards: Tensor, values: Tensor | None, action_mask: Tensor, groups: Tensor, *_: Any
) -> Estimate:
    """Responses that are not learnt from stay in their group's mean: each of their tokens has some reward, the KL's."""
    found = estimate(estimator, rewards, values, action_mask | (rewards != 0), groups)
    return Estimate(torch.where(action_mask, found.advantages, 0.0), found.returns)


def all_or_nothing(num_tokens: Tensor, settings: OverlongPenaltySettings, max_tokens: int) -> Tensor:
    return settings.penalty * (num_tokens >= max_tokens).float()


def summed_ratio(settings: PolicyLoss, *tensors: Tensor) -> PolicyLossSums:
    """The surrogate of a response counted once for each of its tokens, and divided by the responses all the same."""
    logprobs, old, advantages, mask, _, importance = tensors
    return policy_loss(settings, logprobs, old, advantages, mask, mask.float(), importance)


def with_gradient(ratio: Tensor, logprobs: Tensor, advantages: Tensor, cap: float) -> Surrogate:
    return Surrogate(ratio.clamp(max=cap) * advantages * logprobs, ratio > cap)


EXPERIENCE, RANK_STEP = "plumbob.trainers.online.experience", "plumbob.trainers.online.ranks.rank_step"
BUGS = {
    "beta 10% too large": Bug(stronger),
    "gamma 0.95": Bug(discounted),
    "temperature 1.1": Bug(hotter),
    "the wrong reference": Bug(replaced=(f"{RANK_STEP}.compute_logprobs_and_values", wrong_reference)),
    "EOS out of the mask": Bug(replaced=(f"{RANK_STEP}.collate_rollouts", without_eos)),
    "responses weigh the same": Bug(weighed),
    "tokens weigh the same": Bug(counted),
    "cut responses learnt from": Bug(lambda run: with_online(run, mask_truncated=False)),
    "cut responses in the baseline": Bug(replaced=(f"{EXPERIENCE}.estimate", with_cut_ones)),
    "a penalty from the first token on": Bug(lambda run: with_online(run, shaping=EARLY)),
    "a penalty that is all or nothing": Bug(
        replaced=("plumbob.trainers.algorithms.reward_shaping.overlong_penalty", all_or_nothing)
    ),
    "a response's ratio summed over its tokens": Bug(
        replaced=("plumbob.trainers.online.objective.policy_loss", summed_ratio)
    ),
    "a weight with a gradient": Bug(replaced=(f"{LOSSES}.weighted_logprobs", with_gradient)),
    "the policy in the reference's role": Bug(replaced=("plumbob.models.policy.PolicyModel.role", role_of_policy)),
}


def run_of(problem: Problem, online: OnlineSettings) -> OnlineRun:
    """A few updates by `ppo`; all responses to a prompt are one group where the estimator compares them."""
    num_samples = problem.size.num_prompts * NUM_RESPONSES
    samples = NUM_RESPONSES if isinstance(online.estimator, GROUPED) else 1
    changes = {
        "learning_rate": 3e-3,
        "schedule": "linear",
        "warmup_fraction": 0.0,
        "num_steps": STEPS,  # At the last of which, where the gradient is taken, the learning rate is 0.
        "prompts_per_step": num_samples // samples,
        "samples_per_prompt": samples,
        "minibatch_size": num_samples,
        "max_grad_norm": 1e9,
    }
    return problem.online_run(online.model_copy(update=changes))


def errors_of(folder: Path, size: Size, online: OnlineSettings, bugs: tuple[str, ...]) -> Errors:
    """At one policy and on one listed step, for the honest trainer and for each of `bugs`."""
    problem = make_problem(size, 0, folder)
    run = run_of(problem, online)
    learners = train_online(run, problem.world, problem.rewards)
    learners.save(folder)
    counts = listed_counts(response_logprobs(problem.world, learners.compute, "policy"), NUM_RESPONSES)
    by_logits = enumerated_gradient(run, problem.instance(), problem.world, learners, counts.astype(float))
    expected = pulled_back(problem.world, learners, by_logits)
    responses = listed_step(problem.world, problem.rewards, counts, learners, STEPS)

    def error(bug: Bug, _: Path) -> float:
        buggy = bug.settings(run)
        others = open_learner(buggy)
        others.load(folder)
        with bug.planted():
            found = trainer_gradient(buggy, problem.world, others, responses)
        return relative_error(found, expected)

    return errors_with(error, BUGS, bugs, folder)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name}, {row.setting}")
def test_each_row_has_the_enumerated_gradient_and_no_listed_bug_has(
    one_rank: Ranks, tmp_path: Path, row: OnlineRow
) -> None:
    bugs = tuple(name for name in row.bug_targets if name not in RATIO_BUGS)
    one_rank.run(errors_of, tmp_path, row.size, row.settings(), bugs)[0].check()


def left_out(rewards: Tensor, action_mask: Tensor, groups: Tensor, eps: float, _: Any = None) -> Tensor:
    """Of each group without the response itself, its variance by mean of squares."""
    returns = torch.where(action_mask, rewards, 0.0).sum(1)
    advantages = torch.zeros_like(returns)
    for group in groups.unique():
        own = groups == group
        advantages[own] = left_out_by_mean_of_squares(returns[own], eps)
    return torch.where(action_mask, advantages[:, None], 0.0)


def errors_where_all_but_one_are_good(folder: Path) -> Errors:
    """GRPO on groups of which each response earns 0.95 but one, which is in its group once and earns nothing."""
    problem = make_problem(Size(), 0, folder)
    world = problem.world
    run = run_of(problem, OnlineSettings(estimator=Grpo(), kl=FixedKl(coefficient=0.0), shaping=UNSHAPED))
    learners = train_online(run, world, problem.rewards)
    learners.save(folder)
    counts = listed_counts(response_logprobs(world, learners.compute, "policy"), NUM_RESPONSES)
    rewards = np.full_like(problem.rewards, 0.95)
    for own, drawn in zip(rewards, counts, strict=True):
        own[np.flatnonzero(drawn == 1)[0]] = 0.0
    instance = replace(problem.instance(), rewards=rewards, beta=0.0)
    by_logits = enumerated_gradient(run, instance, world, learners, counts.astype(float))
    expected = pulled_back(world, learners, by_logits)
    responses = listed_step(world, rewards, counts, learners, STEPS)

    def error(bug: Bug, _: Path) -> float:
        others = open_learner(run)
        others.load(folder)
        with bug.planted():
            found = trainer_gradient(run, world, others, responses)
        return relative_error(found, expected)

    planted = Bug(replaced=("plumbob.trainers.algorithms.advantages.group_standardised", left_out))
    name = "a variance by mean of squares"
    return errors_with(error, {name: planted}, (name,), folder)


def test_nearly_equal_rewards_have_the_enumerated_gradient_and_not_that_of_a_variance_by_mean_of_squares(
    one_rank: Ranks, tmp_path: Path
) -> None:
    errors = one_rank.run(errors_where_all_but_one_are_good, tmp_path)[0]
    errors.check()
    # Rounding in place of a variance that is 0: the one bad response is pushed a hundred times as far, and more.
    assert min(errors.planted.values()) > 100


@pytest.mark.parametrize("kl", [IN_REWARD, K2_IN_LOSS], ids=["reward", "loss"])
def test_a_reference_that_is_trained_along_is_far_from_it(one_rank: Ranks, tmp_path: Path, kl: FixedKl) -> None:
    # What is enumerated takes the reference from the model as it begins, not from the trainer that may be wrong.
    bugs = ("the policy in the reference's role",)
    online = OnlineSettings(estimator=Rloo(), kl=kl, shaping=UNSHAPED)
    one_rank.run(errors_of, tmp_path, Size(depth=2), online, bugs)[0].check()


@pytest.mark.parametrize(
    "online",
    [
        OnlineSettings(estimator=Gae(gamma=0.9, lam=0.5, whiten=True), kl=IN_REWARD),
        OnlineSettings(estimator=ReinforcePlusPlus(gamma=0.9), kl=IN_REWARD),
        OnlineSettings(estimator=Gae(), kl=K2_IN_LOSS),
        OnlineSettings(estimator=ReinforcePlusPlus(), kl=K3_IN_LOSS),
        OnlineSettings(estimator=DrGrpo(), kl=K2_IN_LOSS),
        OnlineSettings(estimator=ReinforcePlusPlusBaseline(), kl=K2_IN_LOSS),
        OnlineSettings(estimator=Rloo(), kl=K3_IN_LOSS),
        OnlineSettings(estimator=Grpo(), kl=K3_IN_LOSS, loss_mean="response"),
    ],
    ids=lambda online: f"{online.estimator.kind}-{online.kl.estimate}-{online.loss_mean}",
)
def test_settings_that_no_row_has_lead_to_the_enumerated_gradient(
    one_rank: Ranks, tmp_path: Path, online: OnlineSettings
) -> None:
    unshaped = online.model_copy(update={"shaping": UNSHAPED})
    assert one_rank.run(errors_of, tmp_path, Size(), unshaped, ())[0].honest < HONEST
