"""Rule rewards: a function of prompt and response as a scorer."""

from collections.abc import Callable, Sequence

from plumbob.reward.scorer import Score, ScoreRequest


class RuleScorer:
    """A function of prompt and response as a scorer."""

    def __init__(self, rule: Callable[[str, str], float]) -> None:
        self._rule = rule

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return [Score(self._rule(request.prompt, request.response), {}) for request in requests]
