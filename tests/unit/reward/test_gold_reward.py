"""A second reward model is logged, and decides nothing."""

from collections.abc import Sequence

from plumbob.reward.gold_reward import SecondRewardScorer
from plumbob.reward.rules.callable_rule import RuleScorer
from plumbob.reward.scorer import Score, ScoreRequest
from tests.support.score_requests import score_requests


class Lengths:
    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return [Score(float(len(one.response)), {"model": float(len(one.response))}) for one in requests]


class Asleep:
    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return [Score(-1.0, {}, {"model": "it is asleep"}) for _ in requests]


def test_what_the_second_reward_failed_on_is_told_as_its_own() -> None:
    (found,) = SecondRewardScorer(Lengths(), Asleep()).score(score_requests([("a", "bc")]))
    assert (found.total, found.failures) == (2.0, {"gold_reward": "it is asleep"})


def test_the_second_reward_is_a_part_and_not_the_total() -> None:
    second = RuleScorer(lambda prompt, response: -float(len(prompt)))
    found = SecondRewardScorer(Lengths(), second).score(score_requests([("a", "bc"), ("def", "g")]))
    assert found == [Score(2.0, {"model": 2.0, "gold_reward": -1.0}), Score(1.0, {"model": 1.0, "gold_reward": -3.0})]
