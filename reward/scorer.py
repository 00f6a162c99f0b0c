"""What scores answers: text in, one score an answer out. A scorer knows nothing of the policy's tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from configs.errors import RunFailed


@dataclass(frozen=True)
class Score:
    """What one answer earns.

    Attributes:
        total: what the learner is given.
        parts: name -> figure behind the total, for the journal.
    """

    total: float
    parts: Mapping[str, float]


class ScoreError(RunFailed):
    """A scorer's figure is NaN or infinite.

    Attributes:
        rows: which of the answers that were given caused it, 0-based.
    """

    def __init__(self, message: str, rows: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.rows = rows


class Scorer(Protocol):
    """Scores answers, each by itself: an answer's score does not depend on what is scored beside it."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Scores of (prompt, response) texts, in the order given."""


class WeightedSum:
    """Several scorers as one: total = sum of weight x total.

    Args:
        scorers: name -> (weight, scorer). In the parts, a scorer's total is under its name, its own parts are under
            `name/part`; both before the weight.
    """

    def __init__(self, scorers: Mapping[str, tuple[float, Scorer]]) -> None:
        if not scorers:
            raise ValueError("a weighted sum needs at least one scorer")
        self._scorers = dict(scorers)

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        by_scorer = {name: scorer.score(pairs) for name, (_, scorer) in self._scorers.items()}
        return [self._sum({name: scores[row] for name, scores in by_scorer.items()}) for row in range(len(pairs))]

    def _sum(self, scores: Mapping[str, Score]) -> Score:
        parts: dict[str, float] = {}
        for name, score in scores.items():
            parts[name] = score.total
            parts |= {f"{name}/{part}": value for part, value in score.parts.items()}
        return Score(sum(self._scorers[name][0] * score.total for name, score in scores.items()), parts)
