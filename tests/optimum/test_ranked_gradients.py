"""Objectives that rank groups: one step's gradient is the enumerated one, and each bug listed there is far from it.

A step of drawn groups, of which numpy counts by the papers' formulas who is first and who is last. Near where training
ends, where returns nearly tie and a KL that is ten percent off ranks otherwise; only groups are drawn whose order no
rounding decides.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import BestOfN, FixedKl, OnlineDpo
from plumbob.configs.settings.offline_objectives import (
    ConservativeDpoLoss,
    DpoLoss,
    FunctionLoss,
    HingeLoss,
    IpoLoss,
    OrpoLoss,
    PreferenceLoss,
    RobustDpoLoss,
    SimpoLoss,
    SppoLoss,
)
from plumbob.configs.settings.training import OnlineSettings
from plumbob.reward.scorer import Score
from plumbob.trainers.algorithms.advantages import best_and_worst
from plumbob.trainers.online.collection.collector import StepResponses
from plumbob.trainers.online.experience import Experience
from plumbob.trainers.online.objective import forward_actions
from plumbob.trainers.online.objectives.ranked_responses import GroupRows, response_pairs
from plumbob.verify.local_learner import OneRank, open_learner
from plumbob.verify.optima.online_optima import step_gradient
from plumbob.verify.optima.ranked_optima import kl_returns
from plumbob.verify.optima.response_tree import Array, Instance
from plumbob.verify.rows.online_rows import OnlineRow
from plumbob.verify.rows.ranked_rows import ONLINE_IPO_ROW, RANKED_ROWS
from plumbob.verify.training.gradients import by_logits, pulled_back, relative_error
from plumbob.verify.training.train_online import Draws, train_online
from plumbob.verify.world.problem import Problem, Size, make_problem
from plumbob.verify.world.tiny_world import TinyWorld, every_response, response_logprobs
from tests.optimum.online_gradients import policy_of, trainer_gradient
from tests.optimum.pair_gradients import pairs_gradient
from tests.optimum.planted import Bug, Errors, errors_with
from tests.optimum.ratio_bugs import with_online
from tests.optimum.test_gradients import BUGS
from tests.support.learner_ranks import Ranks

NUM_GROUPS = 60
"""To each prompt."""
STEPS = 40
"""Updates before the gradient is taken."""
CLEAR = 1e-4
"""Returns that are nearer than this are not drawn together: float32 may exchange them."""
Groups = NDArray[np.int64]

ROWS: tuple[OnlineRow, ...] = RANKED_ROWS


def with_loss(run: OnlineRun, **changes: Any) -> OnlineRun:
    estimator = run.online.estimator
    assert isinstance(estimator, OnlineDpo)
    return with_online(run, estimator=OnlineDpo(loss=estimator.loss.model_copy(update=changes)))


def stronger_loss(run: OnlineRun) -> OnlineRun:
    estimator = run.online.estimator
    assert isinstance(estimator, OnlineDpo)
    match estimator.loss:
        case DpoLoss(beta=beta):
            return with_loss(run, beta=1.1 * beta)
        case IpoLoss(tau=tau):
            return with_loss(run, tau=1.1 * tau)
        case other:
            raise AssertionError(f"no row has {other.kind}")


def stronger(run: OnlineRun) -> OnlineRun:
    """Of the KL, where responses are ranked by it; else of the loss."""
    return BUGS["beta 10% too large"].settings(run) if run.online.kl.coefficient else stronger_loss(run)


def exchanged(rewards: Tensor, action_mask: Tensor, groups: Tensor, *_: Any) -> Tensor:
    return -best_and_worst(rewards, action_mask, groups)


def of_first_two(rewards: Tensor, action_mask: Tensor, groups: Tensor, *_: Any) -> Tensor:
    """The better of a group's first two responses against the other, whatever the rest are worth."""
    place = torch.stack([(groups[:row] == group).sum() for row, group in enumerate(groups)])
    return best_and_worst(rewards, action_mask & (place < 2)[:, None], groups)


def swapped_on_ties(rewards: Tensor, action_mask: Tensor, groups: Tensor, *_: Any) -> Tensor:
    """Chosen and rejected exchanged where several are the best: an order that puts equal ones the other way round."""
    found = best_and_worst(rewards, action_mask, groups)
    totals = torch.where(action_mask, rewards, 0.0).sum(dim=1)
    for group in groups.unique():
        own = groups == group
        if (totals[own] == totals[own].max()).sum() > 1:
            found[own] = -found[own]
    return found


def with_tied_groups(rewards: Tensor, action_mask: Tensor, groups: Tensor, *_: Any) -> Tensor:
    """A group of equal returns gives a pair too: its first response against its last."""
    found = best_and_worst(rewards, action_mask, groups)
    for group in groups.unique():
        (own,) = torch.nonzero(groups == group, as_tuple=True)
        if not found[own].any():
            found[own[0]], found[own[-1]] = action_mask[own[0]].float(), -action_mask[own[-1]].float()
    return found


def whole_group(experience: Experience, groups: Tensor) -> GroupRows:
    """Every response is learnt as if it were the best."""
    learnt = replace(experience, advantages=experience.action_mask.float())
    return GroupRows(learnt, np.arange(experience.num_rows))


def at_the_policy(experience: Experience, _: Tensor, groups: Tensor) -> GroupRows:
    """The policy as the step began in the reference's place."""
    return response_pairs(experience, experience.old_logprobs, groups)


def in_one_update(run: OnlineRun) -> OnlineRun:
    """Of as many rows as the step has responses."""
    return with_online(run, minibatch_size=run.online.minibatch_size * run.online.samples_per_prompt)


def ranked_by(ranking: Any) -> Bug:
    return Bug(replaced=("plumbob.trainers.algorithms.advantages.best_and_worst", ranking))


OBJECTIVE = "plumbob.trainers.online.objective"
RANKED_BUGS = BUGS | {
    "beta 10% too large": Bug(stronger),
    "ranked by reward alone": Bug(lambda run: with_online(run, kl=FixedKl(coefficient=0.0))),
    "the loss's beta 10% too large": Bug(stronger_loss),
    "per token instead of summed": Bug(lambda run: with_loss(run, per_token=True)),
    "the whole group learnt": Bug(in_one_update, (f"{OBJECTIVE}.best_responses", whole_group)),
    "the worst learnt": ranked_by(exchanged),
    "chosen and rejected exchanged": ranked_by(exchanged),
    "any two of a group": ranked_by(of_first_two),
    "the policy as the loss's reference": Bug(replaced=(f"{OBJECTIVE}.response_pairs", at_the_policy)),
    "chosen and rejected exchanged on ties": ranked_by(swapped_on_ties),
    "pairs of tied groups": ranked_by(with_tied_groups),
}


def run_of(problem: Problem, online: OnlineSettings) -> OnlineRun:
    """A few updates by `ppo`."""
    num_samples = problem.size.num_prompts * NUM_GROUPS * online.samples_per_prompt
    changes = {
        "learning_rate": 5e-3,
        "warmup_fraction": 0.0,
        "num_steps": STEPS,  # At the last of which, where the gradient is taken, the learning rate is 0.
        "prompts_per_step": problem.size.num_prompts * NUM_GROUPS,
        "minibatch_size": num_samples,
        "max_grad_norm": 1e9,
    }
    return problem.online_run(online.model_copy(update=changes))


def returns_of(run: OnlineRun, instance: Instance, world: TinyWorld, learners: OneRank) -> Array:
    """By which the responses are ranked, [P, K]."""
    policy = response_logprobs(world, learners.compute, "policy")
    return kl_returns(replace(instance, beta=run.online.kl.coefficient), policy)


def drawn_groups(policy: Array, returns: Array, group_size: int) -> Groups:
    """Responses of `NUM_GROUPS` groups to each prompt, [P, G, n]; returns differ clearly or not at all."""
    random = np.random.default_rng(0)
    found = np.zeros((len(policy), NUM_GROUPS, group_size), np.int64)
    for prompt, (logprobs, ranked) in enumerate(zip(policy, returns, strict=True)):
        probs = np.exp(logprobs) / np.exp(logprobs).sum()
        for group in found[prompt]:
            while True:
                group[:] = random.choice(len(probs), group_size, p=probs)
                apart = np.diff(np.sort(ranked[group]))
                if ((apart == 0) | (apart > CLEAR)).all():
                    break
    return found


def drawn_step(world: TinyWorld, rewards: Array, groups: Groups, learners: OneRank) -> StepResponses:
    draws = Draws(world, rewards, groups.shape[-1])
    tokens = learners.compute(every_response(world), "policy", forward_actions)
    rollouts, scores = [], []
    for (prompt, group, index), response in np.ndenumerate(groups):
        request = draws.request(prompt, f"{prompt}-{group}", index)
        row = prompt * rewards.shape[1] + int(response)
        rollouts.append(draws.rollout(request, int(response), tokens[row], STEPS))
        scores.append(Score(float(rewards[prompt, response]), {}))
    return StepResponses(tuple(rollouts), tuple(scores), (), 1, 0)


def counted_pairs(groups: Groups, returns: Array) -> Array:
    """How often response i is the best and j the worst of a group, [P, K, K]; of equal ones the first of its group."""
    wins = np.zeros((*returns.shape, returns.shape[1]))
    for prompt, own in enumerate(groups):
        for group in own:
            ranked = returns[prompt, group]
            if np.ptp(ranked) > 0:
                wins[prompt, group[ranked.argmax()], group[ranked.argmin()]] += 1
    return wins


def enumerated(run: OnlineRun, instance: Instance, world: TinyWorld, learners: OneRank, wins: Array) -> Array:
    """Gradient of the step's loss by next-token logits, [P, S, V], from the papers' formulas."""
    policy = response_logprobs(world, learners.compute, "policy")
    if isinstance(run.online.estimator, BestOfN):
        ones, by_response = np.ones((*policy.shape, 1)), run.online.loss_mean == "response"
        return step_gradient(instance, policy_of(world, learners), ones, wins.sum(2), by_response)
    assert isinstance(run.online.estimator, OnlineDpo)
    loss = run.online.estimator.loss
    by_responses = np.stack(
        [
            own.sum() / wins.sum() * pairs_gradient(known(loss), own, *rows, world.tree.num_tokens)
            for own, *rows in zip(wins, policy, instance.reference, strict=True)
        ]
    )
    return by_logits(world, policy, by_responses)


def known(loss: PreferenceLoss) -> PreferenceLoss:
    """The loss that `SQUARED` writes down is IPO's."""
    return IpoLoss(tau=0.4) if isinstance(loss, FunctionLoss) else loss


def errors_of(folder: Path, size: Size, online: OnlineSettings, bugs: tuple[str, ...], are_whole: bool) -> Errors:
    """At one policy and on one step, for the honest trainer and for each of `bugs`.

    `are_whole`: rewards are -1, 0 or 1.
    """
    problem = make_problem(size, 0, folder)
    if are_whole:
        problem = replace(problem, rewards=np.round(problem.rewards))
    run, world = run_of(problem, online), problem.world
    learners = train_online(run, world, problem.rewards)
    learners.save(folder)
    instance = problem.instance()
    returns = returns_of(run, instance, world, learners)
    groups = drawn_groups(response_logprobs(world, learners.compute, "policy"), returns, online.samples_per_prompt)
    wins = counted_pairs(groups, returns)
    expected = pulled_back(world, learners, enumerated(run, instance, world, learners, wins))
    responses = drawn_step(world, problem.rewards, groups, learners)

    def error(bug: Bug, _: Path) -> float:
        buggy = bug.settings(run)
        others = open_learner(buggy)
        others.load(folder)
        with bug.planted():
            found = trainer_gradient(buggy, world, others, responses)
        return relative_error(found, expected)

    return errors_with(error, RANKED_BUGS, bugs, folder)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name}, {row.setting}")
def test_each_row_has_the_enumerated_gradient_and_no_listed_bug_has(
    one_rank: Ranks, tmp_path: Path, row: OnlineRow
) -> None:
    one_rank.run(errors_of, tmp_path, row.size, row.settings(), tuple(row.bug_targets), False)[0].check()


SQUARED = """
def loss(chosen, rejected, ref_chosen, ref_rejected):
    return ((chosen - ref_chosen) - (rejected - ref_rejected) - 1 / 0.8) ** 2
"""
OTHER_LOSSES = (
    ConservativeDpoLoss(beta=0.4, flip_rate=0.1),
    RobustDpoLoss(beta=0.4, flip_rate=0.1),
    IpoLoss(tau=0.4, per_token=True),
    HingeLoss(beta=0.4),
    OrpoLoss(weight=1.0),
    SimpoLoss(beta=1.0, margin=0.5),
    SppoLoss(beta=0.4),
    FunctionLoss(function="squared.py:loss"),
)


@pytest.mark.parametrize("loss", OTHER_LOSSES, ids=lambda loss: loss.kind)
def test_online_dpo_has_the_enumerated_gradient_of_any_loss_of_pairs(
    one_rank: Ranks, tmp_path: Path, loss: PreferenceLoss
) -> None:
    if isinstance(loss, FunctionLoss):
        (tmp_path / "squared.py").write_text(SQUARED)
        loss = FunctionLoss(function=f"{tmp_path}/{loss.function}")
    online = ONLINE_IPO_ROW.settings().model_copy(update={"estimator": OnlineDpo(loss=loss)})
    bugs = ("chosen and rejected exchanged", "any two of a group")
    one_rank.run(errors_of, tmp_path, Size(depth=2), online, bugs, False)[0].check()


@pytest.mark.parametrize("estimator", [BestOfN(), OnlineDpo(loss=IpoLoss(tau=0.4))], ids=lambda each: each.kind)
def test_where_rewards_tie_the_first_of_a_group_counts_and_equal_groups_teach_nothing(
    one_rank: Ranks, tmp_path: Path, estimator: BestOfN | OnlineDpo
) -> None:
    # Ranked by rewards alone: most groups of four have several best, and some are all alike.
    online = ONLINE_IPO_ROW.settings().model_copy(update={"estimator": estimator})
    bugs = ("chosen and rejected exchanged on ties", "pairs of tied groups")
    one_rank.run(errors_of, tmp_path, Size(depth=2), online, bugs, True)[0].check()
