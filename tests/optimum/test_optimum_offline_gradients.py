"""The gradient of one step of the real runs of pairs and KTO against the enumerated one, and mistakes that it catches.

About 40 s on one core.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from torch import Tensor

from configs.inputs import LabelledData
from configs.objectives import (
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
from configs.roles import Learner
from configs.schema import KtoRun
from configs.stages import Dpo, Kto
from console.verify.gradients import pulled_back, relative_error
from console.verify.local import OneRank, open_learner
from console.verify.offline import exact_counts, train_pairs
from console.verify.offline_gradients import (
    NO_CLIP,
    NO_RATE,
    dpo_enumerated_gradient,
    dpo_step_gradient,
    kto_enumerated_gradient,
    kto_step_gradient,
)
from console.verify.optima_offline import exact_wins
from console.verify.problem import UNREAD, Problem, Size, make_problem
from console.verify.tree import EOS
from data.tokens import TokenBatch, collate
from tests.ranks import Ranks
from trainers.dpo import DpoBatch, with_reference

HONEST = 1e-3
PLANTED = 0.02
SIZE = Size(depth=2)
"""13 answers to each of 3 prompts."""
BETA = 0.4
DPO = DpoLoss(beta=BETA)


def without_reference(*arguments: Any) -> DpoBatch:
    batch = with_reference(*arguments)
    return replace(batch, ref_chosen=np.zeros_like(batch.ref_chosen), ref_rejected=np.zeros_like(batch.ref_rejected))


def without_eos(*arguments: Any) -> TokenBatch:
    """An EOS that is taken for padding: the policy is not taught to end."""
    batch = collate(*arguments)
    return replace(batch, loss_mask=batch.loss_mask & (batch.input_ids != EOS))


def per_token(logprobs: Tensor, mask: Tensor) -> Tensor:
    return (logprobs * mask).sum(dim=-1) / mask.sum(dim=-1)


@dataclass(frozen=True)
class Mistake:
    """A trainer that is wrong: another loss than was asked for, or one of its functions replaced."""

    asked: PreferenceLoss = DPO
    loss: PreferenceLoss = DPO
    replaced: tuple[str, Callable[..., Any]] | None = None


MISTAKES = {
    "beta 10% too large": Mistake(loss=DpoLoss(beta=1.1 * BETA)),
    "weight 10% too large": Mistake(asked=OrpoLoss(weight=1.0), loss=OrpoLoss(weight=1.1)),
    "no reference": Mistake(replaced=("with_reference", without_reference)),
    "EOS out of the mask": Mistake(replaced=("collate", without_eos)),
    "per token instead of summed": Mistake(replaced=("sequence_logprobs", per_token)),
    "summed instead of per token": Mistake(asked=IpoLoss(tau=BETA, per_token=True), loss=IpoLoss(tau=BETA)),
}
LOSSES = {
    "DPO": (DPO, DpoLoss(beta=1.1 * BETA)),
    "conservative DPO": (ConservativeDpoLoss(beta=BETA), ConservativeDpoLoss(beta=1.1 * BETA)),
    "robust DPO": (RobustDpoLoss(beta=BETA), RobustDpoLoss(beta=1.1 * BETA)),
    "IPO": (IpoLoss(tau=BETA), IpoLoss(tau=1.1 * BETA)),
    "IPO per token": (IpoLoss(tau=BETA, per_token=True), IpoLoss(tau=1.1 * BETA, per_token=True)),
    "hinge": (HingeLoss(beta=BETA), HingeLoss(beta=1.1 * BETA)),
    "ORPO": (OrpoLoss(weight=1.0), OrpoLoss(weight=1.1)),
    "SimPO": (SimpoLoss(beta=1.0, margin=0.5), SimpoLoss(beta=1.1, margin=0.5)),
    "SPPO": (SppoLoss(beta=BETA), SppoLoss(beta=1.1 * BETA)),
}
"""Each with the same, 10% too strong."""


def moved_policy(problem: Problem, counts: Any, folder: Path) -> OneRank:
    """After a few real steps, so that the policy is not the reference."""
    settings = Dpo(learning_rate=3e-3, loss=DPO, batch_size=int(counts.sum()) // 6)
    run = problem.dpo_run(settings)
    learners = open_learner(run)
    train_pairs(run, problem.world, counts, learners, folder / "before")
    learners.save(folder)
    return learners


def pairs_error(folder: Path, trainer: Mistake) -> float:
    """Relative error of the gradient of a trainer on pairs."""
    problem = make_problem(SIZE, 0, folder)
    counts = exact_counts(np.stack([exact_wins(rewards) for rewards in problem.rewards]), copies=4)
    learners = moved_policy(problem, counts, folder)
    expected = pulled_back(
        problem.world, learners, dpo_enumerated_gradient(problem.world, counts, trainer.asked, learners)
    )
    settings = Dpo(learning_rate=NO_RATE, max_grad_norm=NO_CLIP, loss=trainer.loss, batch_size=int(counts.sum()))
    run = problem.dpo_run(settings)
    others = open_learner(run)
    others.load(folder)
    with mock.patch(f"trainers.dpo.{trainer.replaced[0]}", trainer.replaced[1]) if trainer.replaced else nullcontext():
        found = dpo_step_gradient(run, problem.world, counts, others, folder / "step")
    return relative_error(found, expected)


def kto_error(folder: Path, beta: float) -> float:
    """Relative error of the gradient of a KTO trainer with `beta`, where BETA is right; of 4 labels 0 to 4 are good."""
    problem = make_problem(SIZE, 0, folder)
    counts = exact_counts(np.stack([exact_wins(rewards) for rewards in problem.rewards]), copies=4)
    learners = moved_policy(problem, counts, folder)
    good = np.random.default_rng(0).integers(5, size=problem.rewards.shape)

    def run_with(beta: float) -> KtoRun:
        return KtoRun(
            data=LabelledData(labelled=UNREAD),
            policy=problem.policy,
            learner=Learner(zero_stage=0, micro_batch_size=64),
            kto=Kto(
                learning_rate=NO_RATE,
                max_grad_norm=NO_CLIP,
                batch_size=4 * good.size,
                beta=beta,
                desirable_weight=1.3,
                undesirable_weight=0.7,
            ),
        )

    expected = kto_enumerated_gradient(run_with(BETA), problem.world, good, 4, learners)
    others = open_learner(run_with(beta))
    others.load(folder)
    found = kto_step_gradient(run_with(beta), problem.world, good, 4, others, folder / "step")
    return relative_error(found, pulled_back(problem.world, learners, expected))


def pairs_errors(folder: Path, name: str) -> tuple[float, float]:
    """Of an honest trainer of one of `LOSSES`, and of one that takes it for the stronger one."""
    asked, stronger = LOSSES[name]
    honest = pairs_error(folder / "honest", Mistake(asked, asked))
    return honest, pairs_error(folder / "stronger", Mistake(asked, stronger))


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_of_each_loss_of_pairs_is_the_enumerated_one(one_rank: Ranks, tmp_path: Path, name: str) -> None:
    honest, stronger = one_rank.run(pairs_errors, tmp_path, name)[0]
    assert honest < HONEST and stronger > PLANTED


def planted_error(folder: Path, mistake: str) -> float:
    return pairs_error(folder, MISTAKES[mistake])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_far_from_it(one_rank: Ranks, tmp_path: Path, mistake: str) -> None:
    assert one_rank.run(planted_error, tmp_path, mistake)[0] > PLANTED


def test_the_gradient_of_kto_is_the_enumerated_one(one_rank: Ranks, tmp_path: Path) -> None:
    assert one_rank.run(kto_error, tmp_path, BETA)[0] < HONEST


def test_kto_with_a_beta_ten_percent_too_large_is_far_from_it(one_rank: Ranks, tmp_path: Path) -> None:
    assert one_rank.run(kto_error, tmp_path, 1.1 * BETA)[0] > PLANTED
