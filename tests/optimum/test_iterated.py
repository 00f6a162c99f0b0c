"""Iterated DPO: a step on pairs out of a journal has the gradient that numpy lists; each planted bug has another."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from plumbob.configs.runs import DpoRun
from plumbob.configs.settings.models import AlignedPolicySettings
from plumbob.rollout.journal import JournalRow
from plumbob.rollout.journal_pairs import JournalPairs, best_against_worst
from plumbob.verify.local_learner import open_learner
from plumbob.verify.rows.iterated_row import IteratedRow, round_of
from plumbob.verify.training.gradients import gradient_of, pulled_back, relative_error
from plumbob.verify.training.kto_gradients import NO_CLIP, NO_RATE
from plumbob.verify.training.own_pairs import RANKING, drawn_rows, own_pairs
from plumbob.verify.training.train_offline import train_records
from plumbob.verify.world.problem import Problem, make_problem
from plumbob.verify.world.tiny_world import TinyWorld, response_logprobs
from tests.optimum.pair_gradients import dpo_enumerated_gradient
from tests.optimum.planted import Bug, Errors, errors_with
from tests.optimum.test_offline_gradients import PAIR_BUGS
from tests.support.learner_ranks import Ranks

Rows = list[tuple[int, JournalRow]]
ROW = IteratedRow(group_size=16, num_groups=64)


def pairing(change: Any) -> Bug:
    """`best_against_worst` of rows that are changed first, or by another part."""
    return Bug(replaced=("plumbob.verify.training.own_pairs.best_against_worst", change))


def exchanged(rows: Iterable[tuple[int, JournalRow]], part: str, margin: float) -> JournalPairs:
    found = best_against_worst(rows, part, margin)
    return replace(found, pairs=tuple(p._replace(chosen=p.rejected, rejected=p.chosen) for p in found.pairs))


def of_first_two(rows: Iterable[tuple[int, JournalRow]], part: str, margin: float) -> JournalPairs:
    """The better of the first two responses that can be paired, whatever the rest are worth."""
    met: dict[str, set[str]] = {}
    kept = []
    for step, row in rows:
        own = met.setdefault(row.prompt_id, set())
        if row.finish_reason == "stop" and row.response and len(own | {row.response}) <= 2:
            own.add(row.response)
            kept.append((step, row))
    return best_against_worst(kept, part, margin)


def with_cut(rows: Iterable[tuple[int, JournalRow]], part: str, margin: float) -> JournalPairs:
    return best_against_worst([(step, replace(row, finish_reason="stop")) for step, row in rows], part, margin)


def bugs_of(first: Rows) -> Mapping[str, Bug]:
    """`first`: rows of the round before."""
    own = {name: PAIR_BUGS[name] for name in ("beta 10% too large", "no reference", "per token instead of summed")}
    return {
        **own,
        "chosen and rejected exchanged": pairing(exchanged),
        "any two of a group": pairing(of_first_two),
        "ranked by the total": pairing(lambda rows, _, margin: best_against_worst(rows, None, margin)),
        "cut responses taken": pairing(with_cut),
        "pairs of both rounds": pairing(lambda rows, *how: best_against_worst([*first, *rows], *how)),
    }


def listed_wins(world: TinyWorld, rows: Rows) -> NDArray[np.int64]:
    """How often response i is the best of a group and j the worst, of those that end and are not empty, [P, K, K]."""
    num_responses = len(world.tree.responses)
    wins = np.zeros((len(world.prompts), num_responses, num_responses), np.int64)
    ids = {response: index for index, response in enumerate(world.tree.responses)}
    for _, group in groupby(rows, lambda one: one[1].prompt_id):
        own = [row for _, row in group]
        values = {ids[tuple(row.token_ids.tolist())]: row.rewards[RANKING] for row in own}
        paired = [k for k in values if world.tree.ends[k] and len(world.tree.responses[k]) > 1]
        if len(paired) > 1:
            prompt = world.prompts.index(tuple(own[0].prompt_ids.tolist()))
            wins[prompt, max(paired, key=lambda k: values[k]), min(paired, key=lambda k: values[k])] += 1
    return wins


def rows_of(problem: Problem, policy: Any, seed: int) -> Rows:
    given = round_of(problem, policy, policy)
    return list(drawn_rows(problem.world, policy, given.task, given.total, ROW.num_groups, ROW.group_size, seed))


def run_from(problem: Problem, model: Path, **settings: Any) -> DpoRun:
    run = problem.dpo_run(ROW.settings().model_copy(update=settings))
    policy = AlignedPolicySettings(model=str(model), tuning=run.policy.tuning)
    return run.model_copy(update={"policy": policy})


def errors_of(folder: Path) -> Errors:
    """In the second round after a few of its steps: the policy is neither the reference nor what was sampled."""
    problem = make_problem(ROW.size, 0, folder)
    world = problem.world
    learners = open_learner(run_from(problem, problem.model))
    first = rows_of(problem, response_logprobs(world, learners.compute, "policy"), seed=1)
    train_records(
        run_from(problem, problem.model, num_epochs=2), world, own_pairs(world, first), learners, folder / "0"
    )
    model = folder / "0" / "policy"
    slower = run_from(problem, model, num_epochs=1, learning_rate=3e-4)
    learners = open_learner(slower)
    reference = response_logprobs(world, learners.compute, "policy")
    rows = rows_of(problem, reference, seed=2)
    train_records(slower, world, own_pairs(world, rows), learners, folder / "1")
    learners.save(folder)
    wins = listed_wins(world, rows)
    loss = ROW.settings().loss
    by_logits = dpo_enumerated_gradient(world, wins, loss, learners, reference)
    expected = pulled_back(world, learners, by_logits)

    def error(bug: Bug, step: Path) -> float:
        with bug.planted():
            pairs = own_pairs(world, rows)
            still = {"learning_rate": NO_RATE, "max_grad_norm": NO_CLIP, "num_epochs": 1, "batch_size": len(pairs)}
            run = run_from(problem, model, loss=bug.settings(loss), **still)
            others = open_learner(run)
            others.load(folder)
            found = gradient_of(others, lambda: train_records(run, world, pairs, others, step))
        return relative_error(found, expected)

    return errors_with(error, bugs_of(first), ROW.bug_targets, folder)


def test_a_round_has_the_listed_gradient_and_no_listed_bug_has(one_rank: Ranks, tmp_path: Path) -> None:
    one_rank.run(errors_of, tmp_path)[0].check()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_pairs_of_drawn_groups_are_as_frequent_as_their_closed_form_says(seed: int, tmp_path: Path) -> None:
    """Of 3000 groups each share of pairs is within 4 of its standard deviations, at most 1/2 / sqrt(3000)."""
    row = replace(ROW, num_groups=3000)
    problem = make_problem(row.size, seed, tmp_path)
    tree = problem.world.tree
    logits = np.random.default_rng(seed).normal(size=(3, len(tree.states), 4))
    policy = tree.response_logprobs(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))
    given = round_of(problem, policy, policy)
    rows = drawn_rows(problem.world, policy, given.task, given.total, row.num_groups, row.group_size, seed)
    counted = listed_wins(problem.world, list(rows))[:, given.paired][:, :, given.paired] / row.num_groups
    expected = row.wins(given, policy)
    assert np.abs(counted - expected).max() < 4 * 0.5 / np.sqrt(row.num_groups)
    assert counted.sum((1, 2)) == pytest.approx(expected.sum((1, 2)), abs=4 * 0.5 / np.sqrt(row.num_groups))
