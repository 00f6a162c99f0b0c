"""The row of iterated DPO: rounds of pairs of the policy's own responses, each learnt from the policy before it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.settings.models import AlignedPolicySettings
from plumbob.configs.settings.offline_objectives import IpoLoss
from plumbob.configs.settings.training import DpoSettings
from plumbob.verify.local_learner import open_learner
from plumbob.verify.optima.planted_bugs import TOO_LARGE
from plumbob.verify.optima.ranked_optima import ipo_of_ranked, pair_masses
from plumbob.verify.optima.response_tree import Array, ResponseTree, log_normalised, seeded_rewards, total_variation
from plumbob.verify.rows.bug_shift import Moved, moved
from plumbob.verify.training.own_pairs import drawn_rows, own_pairs
from plumbob.verify.training.train_offline import train_records
from plumbob.verify.world.problem import DISTANCE, Measurement, Problem, Size, make_problem
from plumbob.verify.world.tiny_world import response_logprobs

TAU = 0.4
NUM_ROUNDS = 2
OTHER_SEED = 1000
"""Added to an instance's, of the part of the reward that does not rank."""


@dataclass(frozen=True, eq=False)
class Round:
    """What a round begins with; log-probs of whole responses, [P, K].

    Attributes:
        sampled: the policy whose responses are paired.
        reference: of the loss, and what is trained begins as it.
        before: the policy with which the round before began.
        task: of the part that ranks, [P, K].
        total: with the other part, [P, K].
    """

    tree: ResponseTree
    sampled: Array
    reference: Array
    before: Array
    task: Array
    total: Array

    @property
    def paired(self) -> NDArray[np.int64]:
        """Which responses may stand in a pair: those that end, and say something. Indices [K']."""
        return np.flatnonzero(self.tree.ends & (self.tree.num_tokens > 1))

    def seen(self, policy: Array) -> Array:
        """What of a policy [P, K] is held to: the responses that are paired, given one of them; log-probs [P, K']."""
        return log_normalised(policy[:, self.paired])


RoundTarget = Callable[[Round], Array]
"""Where a round ends, log-probs [P, K'] given a response that is paired."""


def ended(given: Round, wins: Array, tau: float = TAU) -> Array:
    """Of IPO's loss over `wins` [P, K', K'] of the paired responses."""
    target = ipo_of_ranked(tau)
    lengths = given.tree.num_tokens[given.paired]
    rows = zip(given.seen(given.reference), wins, strict=True)
    return np.stack([target(reference, own, lengths) for reference, own in rows])


@dataclass(frozen=True)
class IteratedRow:
    """IPO's loss on the best against the worst of groups of the policy's own, which end where a part ranks them.

    Nothing holds how many responses are cut or empty, since no pair has one: the row looks at the others, given one of
    them. A round's target is solved from the policy that it began with, so that each round is held to its own.

    Attributes:
        num_groups: of each prompt, in a round.
    """

    name: str = "iterated DPO"
    setting: str = "IPO's loss, two rounds of best against worst of 32 by one part; 12 of 40 responses are paired"
    size: Size = field(default_factory=Size)
    group_size: int = 32
    num_groups: int = 1536

    def wins(self, given: Round, policy: Array) -> Array:
        """Of a policy's groups, [P, K', K']."""
        return pair_masses(policy[:, given.paired], given.task[:, given.paired], self.group_size)

    def target(self, given: Round) -> Array:
        return ended(given, self.wins(given, given.sampled))

    @property
    def bug_targets(self) -> Mapping[str, RoundTarget | None]:
        """The targets of rounds that have a planted bug, by its name. Of means over tokens one is not solved for: how
        much mass is left to responses that are in no pair moves the others by their lengths."""

        def of_any_two(given: Round) -> Array:
            return ended(given, pair_masses(given.seen(given.sampled), given.task[:, given.paired], 2))

        def exchanged(given: Round) -> Array:
            return ended(given, np.swapaxes(self.wins(given, given.sampled), 1, 2))

        def by_the_total(given: Round) -> Array:
            scores = given.total[:, given.paired]
            return ended(given, pair_masses(given.sampled[:, given.paired], scores, self.group_size))

        def with_cut(given: Round) -> Array:
            taken = np.flatnonzero(given.tree.num_tokens > 1)
            wins = pair_masses(given.sampled[:, taken], given.task[:, taken], self.group_size)
            solved = ipo_of_ranked(TAU)
            rows = zip(log_normalised(given.reference[:, taken]), wins, strict=True)
            found = np.stack([solved(reference, own, given.tree.num_tokens[taken]) for reference, own in rows])
            return log_normalised(found[:, np.isin(taken, given.paired)])

        def of_both_rounds(given: Round) -> Array:
            return ended(given, self.wins(given, given.sampled) + self.wins(given, given.before))

        def without_reference(given: Round) -> Array:
            flat = np.zeros_like(given.reference)
            return ended(replace(given, reference=flat), self.wins(given, given.sampled))

        return {
            "beta 10% too large": lambda given: ended(given, self.wins(given, given.sampled), TOO_LARGE * TAU),
            "no reference": without_reference,
            "per token instead of summed": None,
            "chosen and rejected exchanged": exchanged,
            "any two of a group": of_any_two,
            "ranked by the total": by_the_total,
            "cut responses taken": with_cut,
            "pairs of both rounds": of_both_rounds,
        }

    def measure(self, seed: int, folder: Path) -> tuple[Measurement, ...]:
        problem = make_problem(self.size, seed, folder)
        model, distances = problem.model, list[float]()
        for number in range(NUM_ROUNDS):
            begun, reached = self.trained(problem, model, number, folder / f"round-{number}")
            model = folder / f"round-{number}" / "policy"
            given = round_of(problem, begun, begun)
            distances.append(float(total_variation(given.seen(reached), self.target(given)).max()))
        return (Measurement("TV, of the worse round", max(distances), DISTANCE),)

    def trained(self, problem: Problem, model: Path, number: int, folder: Path) -> tuple[Array, Array]:
        """A round from the policy in a folder: the log-probs [P, K] of that policy, and of the one that was reached."""
        run = problem.dpo_run(self.settings())
        tuning = run.policy.tuning
        run = run.model_copy(update={"policy": AlignedPolicySettings(model=str(model), tuning=tuning)})
        learners = open_learner(run)
        begun = response_logprobs(problem.world, learners.compute, "policy")
        given = round_of(problem, begun, begun)
        rows = drawn_rows(
            problem.world,
            begun,
            given.task,
            given.total,
            self.num_groups,
            self.group_size,
            NUM_ROUNDS * problem.seed + number,
        )
        train_records(run, problem.world, own_pairs(problem.world, rows), learners, folder)
        return begun, response_logprobs(problem.world, learners.compute, "policy")

    def settings(self) -> DpoSettings:
        return DpoSettings(
            learning_rate=5e-3,
            schedule="linear",
            warmup_fraction=0.2,
            batch_size=256,
            num_epochs=16,
            loss=IpoLoss(tau=TAU),
            save_every=1_000_000,
        )

    def bug_shifts(self, seed: int, folder: Path) -> Moved:
        """In the second round, had the first one ended at its target with as many responses that are not paired."""
        problem = make_problem(self.size, seed, folder)
        first = round_of(problem, problem.instance().reference, problem.instance().reference)
        begun = first.sampled.copy()
        mass = np.logaddexp.reduce(first.sampled[:, first.paired], axis=1, keepdims=True)
        begun[:, first.paired] = mass + self.target(first)
        second = round_of(problem, begun, first.sampled)
        return moved(lambda target: target(second), self.target, self.bug_targets)


def round_of(problem: Problem, begun: Array, before: Array) -> Round:
    other = seeded_rewards(problem.world.tree, problem.size.num_prompts, OTHER_SEED + problem.seed)
    return Round(problem.world.tree, begun, begun, before, problem.rewards, problem.rewards + other)
