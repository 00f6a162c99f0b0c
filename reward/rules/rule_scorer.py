"""A rule of the settings as a scorer."""

from collections.abc import Sequence

from plumbob.configs.settings.rules.reward_rules import RuleSettings
from plumbob.reward.rules.rule import NotScored, Rule
from plumbob.reward.scorer import Opening, Score, ScoreRequest


class RulePartScorer:
    """Each response by itself, or what follows the text `after` in it; what cannot be scored is worth 0 and counted."""

    def __init__(self, part: RuleSettings, rule: Rule) -> None:
        self._part, self._rule = part, rule

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return [self._scored(request) for request in requests]

    def _scored(self, request: ScoreRequest) -> Score:
        text = request.response
        if self._part.after is not None:
            _, found, text = text.rpartition(self._part.after)
            if not found:
                return Score(0.0, {})
        try:
            return Score(float(self._rule.value(text, self._rule.expected(request.row))), {})
        except NotScored as error:
            return Score(0.0, {}, {self._part.label: str(error)})


def rule_opening(part: RuleSettings, rule: Rule) -> Opening:
    """How the part becomes a scorer; all devices are the same to it."""
    return Opening(rule.check, lambda device: RulePartScorer(part, rule), rule.expected)
