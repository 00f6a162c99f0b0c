"""A second reward model is logged, and decides nothing."""

from collections.abc import Sequence

from plumbob.reward.rules import RuleScorer
from plumbob.reward.scorer import Score
from plumbob.reward.second_judge import SecondRewardScorer


class Lengths:
    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        return [Score(float(len(response)), {"model": float(len(response))}) for _, response in pairs]


def test_the_second_reward_is_a_part_and_not_the_total() -> None:
    second = RuleScorer(lambda prompt, response: -float(len(prompt)))
    found = SecondRewardScorer(Lengths(), second).score([("a", "bc"), ("def", "g")])
    assert found == [Score(2.0, {"model": 2.0, "judge": -1.0}), Score(1.0, {"model": 1.0, "judge": -3.0})]
