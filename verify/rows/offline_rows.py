"""Offline rows of the table: a preference loss, and the policy of its least value."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.settings.offline_objectives import (
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
from plumbob.configs.settings.training import DpoSettings
from plumbob.verify.local_learner import open_learner
from plumbob.verify.optima.count_optima import bradley_terry_information, chi_squared_point, fisher_error
from plumbob.verify.optima.offline_optima import (
    averaged_ipo_optimum,
    dpo_optimum,
    exact_wins,
    flipped,
    ipo_optimum,
    orpo_optimum,
    robust_wins,
    simpo_optimum,
    sppo_optimum,
)
from plumbob.verify.optima.planted_bugs import (
    PairTarget,
    dpo_scores,
    hinge_scores,
    ipo_scores,
    orpo_bugs,
    pair_bugs,
    simpo_bugs,
    sppo_bugs,
    tempered_pairs,
)
from plumbob.verify.optima.response_tree import Array, tilted, total_variation
from plumbob.verify.rows.bug_shift import Moved
from plumbob.verify.rows.kto_row import KtoRow
from plumbob.verify.rows.pair_targets import excess_hinge_loss, moved_hinge, moved_pairs, solved
from plumbob.verify.training.train_offline import drawn_counts, exact_counts, train_pairs
from plumbob.verify.world.problem import DISTANCE, Measurement, Problem, Size, make_problem
from plumbob.verify.world.tiny_world import response_logprobs

BETA = 0.4
"""Of the model's initial weights: with 0.2, as online, pairs take several times as many steps."""
DPO_LOSS, HINGE_LOSS = DpoLoss(beta=BETA), HingeLoss(beta=BETA)
LEARNING_RATE = 5e-3
WARMUP = 0.2
"""Of the steps: with fewer, Adam's first ones throw the policy so far that many rows do not come back in time."""
EXCESS = 0.01
"""Share of the way from the reference's loss to the least one that may be left."""


@dataclass(frozen=True)
class PairPlan:
    """How many records of pairs there are, and how they are cut into steps.

    Attributes:
        copies: records of each unordered pair: a probability is rounded to one in so many.
        rounds_per_step: of the tournament of all responses: how often each response is compared in a step.
    """

    size: Size
    copies: int
    rounds_per_step: int

    @property
    def batch_size(self) -> int:
        return self.rounds_per_step * self.size.num_prompts * (len(self.size.world.tree.responses) // 2)


MANY = PairPlan(Size(), copies=64, rounds_per_step=8)
"""40 responses to each of 3 prompts. A logistic loss bends less than a square, so that noise is felt more."""
FEW = PairPlan(Size(), copies=32, rounds_per_step=4)
"""As many responses and steps, with half as many records."""
HINGE = PairPlan(Size(depth=2), copies=192, rounds_per_step=8)
"""13 responses to each of 3 prompts. The slope jumps, so that noise is felt most."""


@dataclass(frozen=True)
class OfflineRow:
    """A preference loss on every pair in both orders, as often as its probability says.

    Attributes:
        own_bugs: targets of bugs that not every loss of pairs knows, or knows alike.
        flip_rate: of the labels, those recorded the wrong way round.
    """

    name: str
    setting: str
    loss: PreferenceLoss
    target: PairTarget
    own_bugs: Mapping[str, PairTarget | None]
    flip_rate: float = 0.0
    plan: PairPlan = FEW

    @property
    def bug_targets(self) -> Mapping[str, PairTarget | None]:
        """The targets of trainers that have a planted bug, by its name."""
        return {**self.own_bugs, **tempered_pairs(self.target, self.plan.size.world.tree)}

    def measure(self, seed: int, folder: Path) -> tuple[Measurement, ...]:
        problem = make_problem(self.plan.size, seed, folder)
        wins = self.wins(problem)
        reached = trained(problem, self.loss, exact_counts(wins, self.plan.copies), self.plan, folder)
        return (Measurement("TV", distance(problem, reached, self.target, wins), DISTANCE),)

    def bug_shifts(self, seed: int, folder: Path) -> Moved:
        problem = make_problem(self.plan.size, seed, folder)
        return moved_pairs(problem, self.wins(problem), self.target, self.bug_targets)

    def wins(self, problem: Problem) -> Array:
        return np.stack([flipped(exact_wins(rewards), self.flip_rate) for rewards in problem.rewards])


@dataclass(frozen=True)
class SampledRow:
    """DPO on drawn labels: it must reach their maximum likelihood, which lies as far from pi* as counts let it."""

    name: str = "DPO"
    setting: str = f"{MANY.copies} drawn labels a pair"
    loss: PreferenceLoss = DPO_LOSS
    plan: PairPlan = MANY

    @property
    def bug_targets(self) -> Mapping[str, PairTarget | None]:
        return {**pair_bugs(dpo_scores, BETA), **tempered_pairs(dpo_target, self.plan.size.world.tree)}

    def bug_shifts(self, seed: int, folder: Path) -> Moved:
        problem = make_problem(self.plan.size, seed, folder)
        drawn = drawn_counts(wins_of(problem), seed, self.plan.copies).astype(np.float64)
        return moved_pairs(problem, drawn, dpo_target, self.bug_targets)

    def measure(self, seed: int, folder: Path) -> tuple[Measurement, ...]:
        problem = make_problem(self.plan.size, seed, folder)
        wins = wins_of(problem)
        counts = drawn_counts(wins, seed, self.plan.copies)
        reached = trained(problem, self.loss, counts, self.plan, folder)
        drawn = counts.astype(np.float64)
        errors = [
            fisher_error(dpo_scores(own, 1.0), rewards, bradley_terry_information(self.plan.copies * exact, rewards))
            for own, exact, rewards in zip(drawn, wins, problem.rewards, strict=True)
        ]
        return (
            Measurement("TV", distance(problem, reached, dpo_target, drawn), DISTANCE),
            Measurement(
                "Fisher-weighted error of maximum likelihood",
                max(errors),
                chi_squared_point(problem.rewards.shape[1] - 1),
            ),
        )


@dataclass(frozen=True)
class HingeRow:
    """Hinge: its least loss may be reached by many policies, so that the loss is what is compared."""

    name: str = "hinge"
    setting: str = "exact pairs"
    loss: PreferenceLoss = HINGE_LOSS
    plan: PairPlan = HINGE

    @property
    def bug_targets(self) -> Mapping[str, PairTarget | None]:
        return {**pair_bugs(hinge_scores, BETA), **tempered_pairs(hinge_target, self.plan.size.world.tree)}

    def measure(self, seed: int, folder: Path) -> tuple[Measurement, ...]:
        problem = make_problem(self.plan.size, seed, folder)
        counts = exact_counts(wins_of(problem), self.plan.copies)
        reached = trained(problem, self.loss, counts, self.plan, folder)
        excess = excess_hinge_loss(counts.astype(np.float64), BETA * (reached.policy - reached.reference))
        return (Measurement("excess loss, of the reference's", excess, EXCESS),)

    def bug_shifts(self, seed: int, folder: Path) -> Moved:
        problem = make_problem(self.plan.size, seed, folder)
        return moved_hinge(problem, wins_of(problem), BETA, self.bug_targets)


class TrainedPolicy(NamedTuple):
    """Attributes: log-probs [P, K] of the policy that was reached, and of the one that it began as."""

    policy: Array
    reference: Array


def trained(
    problem: Problem, loss: PreferenceLoss, counts: NDArray[np.int64], plan: PairPlan, folder: Path
) -> TrainedPolicy:
    run = problem.dpo_run(
        DpoSettings(
            learning_rate=LEARNING_RATE,
            schedule="linear",
            warmup_fraction=WARMUP,
            batch_size=plan.batch_size,
            loss=loss,
            save_every=int(counts.sum()),
        )
    )
    learners = open_learner(run)
    reference = response_logprobs(problem.world, learners.compute, "policy")
    train_pairs(run, problem.world, counts, learners, folder / "dpo")
    return TrainedPolicy(response_logprobs(problem.world, learners.compute, "policy"), reference)


def distance(problem: Problem, reached: TrainedPolicy, target: PairTarget, wins: Array) -> float:
    """Largest total variation of the policy from its target, over prompts."""
    return float(total_variation(reached.policy, solved(target, problem.world.tree, reached.reference, wins)).max())


def wins_of(problem: Problem) -> Array:
    return np.stack([exact_wins(rewards) for rewards in problem.rewards])


def dpo_target(reference: Array, wins: Array, _: Array) -> Array:
    return dpo_optimum(reference, wins, BETA)


def hinge_target(reference: Array, wins: Array, _: Array) -> Array:
    return tilted(reference, hinge_scores(wins, BETA), 1.0)


NO_FLIP_RATE: dict[str, PairTarget | None] = {"flip rate left out": dpo_target}
"""Plain DPO, of the labels as they are."""
OFFLINE_ROWS = (
    OfflineRow("DPO", "exact pairs", DPO_LOSS, dpo_target, pair_bugs(dpo_scores, BETA), plan=MANY),
    SampledRow(),
    HingeRow(),
    KtoRow(),
    OfflineRow(
        "conservative DPO",
        "exact pairs, flip rate 0.1",
        ConservativeDpoLoss(beta=BETA, flip_rate=0.1),
        lambda ref, wins, _: dpo_optimum(ref, flipped(wins, 0.1), BETA),
        pair_bugs(lambda wins, beta: dpo_scores(flipped(wins, 0.1), beta), BETA) | NO_FLIP_RATE,
        plan=MANY,
    ),
    OfflineRow(
        "robust DPO",
        "a tenth of the labels flipped",
        RobustDpoLoss(beta=BETA, flip_rate=0.1),
        lambda ref, wins, _: dpo_optimum(ref, robust_wins(wins, 0.1), BETA),
        pair_bugs(lambda wins, beta: dpo_scores(robust_wins(wins, 0.1), beta), BETA) | NO_FLIP_RATE,
        flip_rate=0.1,
        plan=MANY,
    ),
    OfflineRow(
        "IPO",
        "summed log-ratios",
        IpoLoss(tau=BETA),
        lambda ref, wins, _: ipo_optimum(ref, wins, BETA),
        pair_bugs(ipo_scores, BETA),
    ),
    OfflineRow(
        "IPO",
        "log-ratios averaged over tokens",
        IpoLoss(tau=BETA, per_token=True),
        lambda ref, wins, lengths: averaged_ipo_optimum(ref, wins, BETA, lengths),
        pair_bugs(ipo_scores, BETA, per_token=True),
    ),
    OfflineRow(
        "ORPO",
        "weight 1, no reference",
        OrpoLoss(weight=1.0),
        lambda _, wins, lengths: orpo_optimum(wins, lengths, 1.0).policy,
        orpo_bugs(1.0),
        plan=MANY,
    ),
    OfflineRow(
        "SimPO",
        "beta 1, margin 0.5, no reference",
        SimpoLoss(beta=1.0, margin=0.5),
        lambda _, wins, lengths: simpo_optimum(wins, lengths, 1.0, 0.5),
        simpo_bugs(0.5),
        plan=MANY,
    ),
    OfflineRow(
        "SPPO",
        "exact pairs",
        SppoLoss(beta=BETA),
        lambda ref, wins, _: sppo_optimum(ref, wins, BETA),
        sppo_bugs(BETA),
    ),
)
