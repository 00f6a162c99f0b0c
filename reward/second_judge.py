"""A second judge beside the scorer: its scores are watched, and nothing learns from them."""

from collections.abc import Sequence

from plumbob.reward.scorer import Score, Scorer

JUDGE_PART = "judge"
"""The second judge's total among a score's parts."""


class JudgedScorer:
    """The scorer's scores, each with the judge's total as one part more."""

    def __init__(self, scorer: Scorer, judge: Scorer) -> None:
        self._scorer, self._judge = scorer, judge

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        judged = self._judge.score(pairs)
        return [
            Score(own.total, {**own.parts, JUDGE_PART: other.total})
            for own, other in zip(self._scorer.score(pairs), judged, strict=True)
        ]
