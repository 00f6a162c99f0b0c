"""What likely mistakes of a trainer would move a row's target by: whether total variation can see them."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from configs.objectives import ReinforcePlusPlus
from configs.stages import Ppo
from console.verify.local import open_learner
from console.verify.problem import DISTANCE, Problem
from console.verify.tree import Array, Instance, total_variation

Moved = Mapping[str, float | None]
"""By mistake: the total variation, largest over prompts, of where it leads from the right target."""
T = TypeVar("T")

SEEN = 2 * DISTANCE
"""What moves a target by at least so much cannot pass for it."""


def moved(solved: Callable[[T], Array], target: T, mistaken: Mapping[str, T | None]) -> Moved:
    """How far each mistaken target is from the right one; `solved` gives a target's log-probs [P, K]."""
    right = solved(target)
    return {
        name: None if wrong is None else float(total_variation(solved(wrong), right).max())
        for name, wrong in mistaken.items()
    }


def untrained(problem: Problem) -> Instance:
    """The instance, with the exact probabilities of the model as it begins, which is the reference."""
    return problem.instance(open_learner(problem.ppo_run(Ppo(estimator=ReinforcePlusPlus()))))
