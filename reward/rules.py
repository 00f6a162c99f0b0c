"""Rule rewards: a function of prompt and response as a scorer."""

from collections.abc import Callable, Sequence

from plumbob.reward.scorer import Score


class RuleScorer:
    """A function of prompt and response as a scorer."""

    def __init__(self, rule: Callable[[str, str], float]) -> None:
        self._rule = rule

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        return [Score(self._rule(prompt, response), {}) for prompt, response in pairs]
