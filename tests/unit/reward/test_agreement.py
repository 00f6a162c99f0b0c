"""How well rewards predict human feedback, and how well annotators agree, by hand."""

import numpy as np
import pytest

from plumbob.data.records import Ranking
from plumbob.reward.agreement import agreement_metrics, annotator_metrics, explained_variance, pair_margins


def ranked(annotator: str | None, *responses: str, prompt: str = "q") -> Ranking:
    return Ranking(prompt, responses, annotator=annotator)


def test_margins_of_all_pairs_of_a_ranking() -> None:
    assert pair_margins(np.array([3, 1, 2], np.float32)).tolist() == [2, 1, -1]


def test_explained_variance_leaves_a_constant_out() -> None:
    scores = np.array([1.0, 2.0, 3.0])
    assert explained_variance(np.array([11, 12, 13], np.float32), scores) == 1
    # Errors 0, 0, 1 have variance 2/9, the scores 2/3.
    assert explained_variance(np.array([1, 2, 2], np.float32), scores) == pytest.approx(2 / 3)
    assert explained_variance(np.array([5, 5, 5], np.float32), scores) == 0
    assert explained_variance(np.array([1, 2, 3], np.float32), np.ones(3)) == 0


def test_accuracy_by_annotator() -> None:
    records = [
        ranked("ann", "x", "y"),
        ranked("bob", "x", "y", "z"),
        ranked(None, "x", "y"),
        ranked("ann", "y", "x"),
    ]
    margins = [np.array(row) for row in ([2.0], [1.0, 0.0, -3.0], [-1.0], [-2.0])]
    # ann: one of two; bob: right, a tie, wrong.
    assert annotator_metrics(records, margins) == {
        "annotators": {"ann": {"accuracy": 0.5, "num_pairs": 2}, "bob": {"accuracy": 0.5, "num_pairs": 3}}
    }
    assert annotator_metrics(records[2:3], margins[2:3]) == {}


def test_agreement_on_the_same_responses() -> None:
    # ann and cay agree, bob with neither: 1 of 3. Another prompt, and bob's second thoughts, are compared with nothing.
    records = [ranked("ann", "x", "y"), ranked("bob", "y", "x"), ranked("cay", "x", "y")]
    assert agreement_metrics(records) == {"annotator_agreement": {"agreement": 1 / 3, "num_compared": 3}}
    others = [ranked("dan", "x", "y", prompt="r"), ranked(None, "y", "x")]
    assert agreement_metrics(records + others) == agreement_metrics(records)
    assert agreement_metrics([ranked("bob", "x", "y"), ranked("bob", "y", "x")]) == {}
    # x > y and x > z are common to both rankings, y and z are not.
    rankings = [ranked("ann", "x", "y", "z"), ranked("bob", "x", "z", "y")]
    assert agreement_metrics(rankings) == {"annotator_agreement": {"agreement": 2 / 3, "num_compared": 3}}
