"""Several parts as one reward, by hand."""

from collections.abc import Sequence

from plumbob.configs.settings.rewards import RuleReward, WeightedPart
from plumbob.reward.combined import CombinedScorer
from plumbob.reward.scorer import Score, Scorer, ScoreRequest
from tests.support.score_requests import score_requests

NOTHING = RuleReward(lambda prompt, response: 0.0)


class Table:
    """Scores each response by a table; what it lacks it fails on, and gives -1."""

    def __init__(self, **values: float) -> None:
        self._values = values

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return [
            Score(self._values[one.response], {})
            if one.response in self._values
            else Score(-1.0, {}, {"table": f"no {one.response}"})
            for one in requests
        ]


def combined(*parts: tuple[str, float, bool, Scorer]) -> CombinedScorer:
    return CombinedScorer([(WeightedPart(name, NOTHING, weight, gate), scorer) for name, weight, gate, scorer in parts])


def test_the_weighted_sum_with_each_value_seen() -> None:
    scorer = combined(("style", 2.0, False, Table(x=1, y=3)), ("length", -0.5, False, Table(x=4, y=0)))
    x, y = scorer.score(score_requests([("q", "x"), ("q", "y")]))
    assert (x.total, x.parts) == (2 * 1 - 0.5 * 4, {"style": 1, "length": 4})
    assert (y.total, y.parts) == (6, {"style": 3, "length": 0})
    assert (x.weighted, x.shut_gate) == ({"style": 2.0, "length": -2.0}, None)
    assert scorer.score([]) == []


def test_a_gate_of_zero_makes_the_whole_zero() -> None:
    scorer = combined(("task", 1.0, False, Table(x=5, y=5)), ("form", 0.25, True, Table(x=0, y=2)))
    shut, opened = scorer.score(score_requests([("q", "x"), ("q", "y")]))
    assert (shut.total, shut.parts) == (0, {"task": 5, "form": 0})
    assert opened.total == 5 + 0.25 * 2
    assert (shut.shut_gate, opened.shut_gate) == ("form", None)
    assert shut.weighted == {"task": 5.0, "form": 0.0} and sum(opened.weighted.values()) == opened.total


def test_what_a_part_failed_on_is_told_by_the_parts_name() -> None:
    scorer = combined(("task", 1.0, False, Table(x=5)), ("judge-of-form", 3.0, False, Table()))
    (found,) = scorer.score(score_requests([("q", "x")]))
    assert (found.total, found.failures) == (5 - 3, {"judge-of-form": "no x"})
