"""The targets of losses of pairs for all prompts, and what bugs would move them by."""

from collections.abc import Mapping

import numpy as np

from plumbob.verify.optima.offline_optima import hinge_loss, hinge_optimum
from plumbob.verify.optima.planted_bugs import PairTarget
from plumbob.verify.optima.response_tree import Array, ResponseTree
from plumbob.verify.rows.bug_shift import Moved, moved, shifts_of_bugs
from plumbob.verify.world.problem import Problem


def solved(target: PairTarget, tree: ResponseTree, reference: Array, wins: Array) -> Array:
    """The target's log-probs for every prompt, [P, K]; `reference` [P, K], `wins` [P, K, K]."""
    return np.stack([target(own, among, tree.num_tokens) for own, among in zip(reference, wins, strict=True)])


def moved_pairs(
    problem: Problem, wins: Array, target: PairTarget, bug_targets: Mapping[str, PairTarget | None]
) -> Moved:
    reference = problem.instance().reference
    return moved(lambda wanted: solved(wanted, problem.world.tree, reference, wins), target, bug_targets)


def moved_hinge(problem: Problem, wins: Array, beta: float, bug_targets: Mapping[str, PairTarget | None]) -> Moved:
    """Hinge has more than one target, so that a bug is measured by the excess loss of where it may end."""
    reference = problem.instance().reference

    def excess(wrong: PairTarget) -> float:
        return excess_hinge_loss(wins, beta * (solved(wrong, problem.world.tree, reference, wins) - reference))

    return shifts_of_bugs(bug_targets, excess)


def excess_hinge_loss(wins: Array, scores: Array) -> float:
    """Of scores beta u [P, K], above the least loss, as a share of what the reference has; the largest over prompts."""
    excess = []
    for own, reached in zip(wins, scores, strict=True):
        least = hinge_optimum(own).loss
        excess.append((hinge_loss(own, reached) - least) / (hinge_loss(own, 0 * reached) - least))
    return max(excess)
