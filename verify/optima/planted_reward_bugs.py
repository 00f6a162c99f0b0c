"""What a reward model learns whose trainer has a planted bug, solved as the right rewards are, in float64.

Rewards are known up to a constant; here their mean is 0. Bugs have the names by which the gradient tests in
`tests/optimum/` plant them; a target of None is not solved for.
"""

from collections.abc import Callable

from plumbob.verify.optima.count_optima import Choice, Rankings, choices_scores, stages
from plumbob.verify.optima.offline_optima import flipped, logistic, pair_scores
from plumbob.verify.optima.planted_bugs import TOO_LARGE
from plumbob.verify.optima.response_tree import Array

RewardTarget = Callable[[Array], Array]
"""Feedback on one prompt's responses -> rewards [K]. Of scores [K], wins [K, K] or counts of rankings [N]."""


def bradley_terry_rewards(wins: Array) -> Array:
    return pair_scores(wins, logistic())


BRADLEY_TERRY_BUGS: dict[str, RewardTarget | None] = {
    "rewards 10% too large": lambda wins: bradley_terry_rewards(wins) / TOO_LARGE,
    "margin 0.5": lambda wins: pair_scores(wins, logistic(0.5)),
}
"""Rewards that are too large in the loss are learnt too small."""
FLIP_RATE = 0.1
FLIPPED_BUGS: dict[str, RewardTarget | None] = {
    "rewards 10% too large": BRADLEY_TERRY_BUGS["rewards 10% too large"],
    "flip rate left out": lambda wins: bradley_terry_rewards(flipped(wins, FLIP_RATE)),
}
"""Of labels of which a share is wrong, by the wins of those that are not; a margin has no target here."""
REGRESSION_BUGS: dict[str, RewardTarget | None] = {
    "rewards 10% too large": lambda scores: scores / TOO_LARGE,
    "absolute instead of squared errors": lambda scores: scores,
}
"""One score for each response leaves no error, whatever is made of errors."""
TWO_RANKED_BUGS: dict[str, RewardTarget | None] = {
    "rewards 10% too large": None,
    "among all instead of those left": None,
}
"""Of Plackett-Luce, on so few records that there need not be finite rewards."""


def plackett_luce_bugs(rankings: Rankings) -> dict[str, RewardTarget | None]:
    """The best alone expects the same rewards, so that chance is what moves it; among all, all rewards end the same."""

    def likeliest(choices: list[Choice]) -> RewardTarget:
        return lambda counts: choices_scores(choices, counts, int(rankings.max()) + 1)

    right = likeliest(stages(rankings))
    return {
        "rewards 10% too large": lambda counts: right(counts) / TOO_LARGE,
        "the best of a ranking alone": likeliest(stages(rankings)[:1]),
        "among all instead of those left": likeliest([Choice(stage.chosen, rankings) for stage in stages(rankings)]),
    }
