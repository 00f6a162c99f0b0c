"""The gold reward: a second reward model beside the first, whose scores are logged and never trained on."""

from collections.abc import Sequence
from dataclasses import replace

from plumbob.reward.scorer import Score, Scorer, ScoreRequest

GOLD_PART = "gold_reward"
"""The gold reward among a score's parts."""


class SecondRewardScorer:
    """The scorer's scores, each with the second reward model's total as one part more.

    A policy over-optimises a reward model when its score keeps rising while that of a second one, which the policy
    was not trained against, falls (Gao et al. 2022, arXiv 2210.10760).
    """

    def __init__(self, scorer: Scorer, second: Scorer) -> None:
        self._scorer, self._second = scorer, second

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        scored = zip(self._scorer.score(requests), self._second.score(requests), strict=True)
        return [_joined(first, second) for first, second in scored]


def _joined(first: Score, second: Score) -> Score:
    failures = dict(first.failures)
    if second.failures:
        failures[GOLD_PART] = "; ".join(second.failures.values())
    return replace(first, parts={**first.parts, GOLD_PART: second.total}, failures=failures)
