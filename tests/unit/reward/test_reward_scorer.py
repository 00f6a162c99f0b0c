import pytest

from reward.scorer import Score, WeightedSum


class Length:
    """Scores an answer by its letters, with the prompt's letters as a part."""

    def score(self, pairs):
        return [Score(float(len(response)), {"prompt": float(len(prompt))}) for prompt, response in pairs]


class Constant:
    def score(self, pairs):
        return [Score(10.0, {}) for _ in pairs]


def test_the_total_is_weighted_and_the_parts_are_named():
    # 0.5 x 3 - 2 x 10 = -18.5; 0.5 x 1 - 20 = -19.5.
    scorer = WeightedSum({"length": (0.5, Length()), "constant": (-2.0, Constant())})
    first, second = scorer.score([("ab", "xyz"), ("", "x")])
    assert first == Score(-18.5, {"length": 3.0, "length/prompt": 2.0, "constant": 10.0})
    assert second == Score(-19.5, {"length": 1.0, "length/prompt": 0.0, "constant": 10.0})


def test_sums_can_be_nested_and_empty_batches_are_fine():
    inner = WeightedSum({"length": (1.0, Length())})
    outer = WeightedSum({"inner": (3.0, inner)})
    assert outer.score([("a", "xy")]) == [Score(6.0, {"inner": 2.0, "inner/length": 2.0, "inner/length/prompt": 1.0})]
    assert outer.score([]) == []


def test_a_sum_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one scorer"):
        WeightedSum({})
