"""Several reward models as one scorer, which pays less where they disagree."""

import statistics
from collections.abc import Sequence

from plumbob.reward.scorer import Opening, Score, Scorer, ScoreRequest


class EnsembleScorer:
    """mean - penalty * std of the members' scores, the standard deviation being over the members (divided by k).

    Uncertainty-weighted optimisation (Coste et al. 2023, arXiv 2310.02743), which takes off the variance where this
    takes off its root: so the penalty has no unit, and is the same for rewards of any scale.

    Args:
        members: each with scores of mean 0 and variance 1, or they cannot be compared.
    """

    def __init__(self, members: Sequence[Scorer], penalty: float) -> None:
        self._members, self._penalty = tuple(members), penalty

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Scores in the order given; their parts are the members' totals `model-0`, `model-1`, ... and the `std`."""
        columns = [[score.total for score in member.score(requests)] for member in self._members]
        return [self._joined(totals) for totals in zip(*columns, strict=True)]

    def _joined(self, totals: Sequence[float]) -> Score:
        std = statistics.pstdev(totals)
        parts = {f"model-{number}": total for number, total in enumerate(totals)}
        return Score(statistics.fmean(totals) - self._penalty * std, {**parts, "std": std})


def ensemble_opening(members: Sequence[Opening], penalty: float) -> Opening:
    """Each member is checked, and opened, as it would be alone."""

    def check() -> None:
        for member in members:
            member.check()

    return Opening(check, lambda device: EnsembleScorer([member.open(device) for member in members], penalty))
