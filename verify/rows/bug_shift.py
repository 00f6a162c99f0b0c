"""What planted bugs of a trainer would move a row's target by: whether the row can see them."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from plumbob.verify.optima.response_tree import Array, total_variation
from plumbob.verify.world.problem import DISTANCE

Moved = Mapping[str, float | None]
"""By bug: how far where it leads is from the right target, in what the row's first check measures."""
T = TypeVar("T")

SEEN = 2 * DISTANCE
"""What moves a target by at least so much cannot pass for it."""


def shifts_of_bugs(bug_targets: Mapping[str, T | None], measured: Callable[[T], float]) -> Moved:
    """What `measured` says of each target of a bug; None of what is not solved for."""
    return {name: None if wrong is None else measured(wrong) for name, wrong in bug_targets.items()}


def moved(solved: Callable[[T], Array], target: T, bug_targets: Mapping[str, T | None]) -> Moved:
    """Total variation of each target of a bug from the right one, the largest over prompts.

    Args:
        solved: a target -> its log-probs [P, K].
    """
    right = solved(target)
    return shifts_of_bugs(bug_targets, lambda wrong: float(total_variation(solved(wrong), right).max()))
