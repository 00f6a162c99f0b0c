"""The digest of records: what counts as the same, and what does not."""

from itertools import combinations

import numpy as np
import pytest

from plumbob.data.record_digest import digest_of
from plumbob.data.records import Ranking
from plumbob.data.tokenization import TokenSequence


def sequence(*ids: int, learnt: bool = True) -> TokenSequence:
    return TokenSequence(np.array(ids, dtype=np.int32), np.full(len(ids), learnt))


def test_equal_records_have_one_digest() -> None:
    assert digest_of([sequence(1, 2), sequence(3)]) == digest_of((sequence(1, 2), sequence(3)))
    # A view of every second number has the bytes of a copy.
    view = TokenSequence(np.array([1, 9, 2, 9], dtype=np.int32)[::2], np.ones(2, np.bool_))
    assert digest_of([view]) == digest_of([sequence(1, 2)])


def test_whatever_differs_has_another() -> None:
    different = [
        *([], [sequence(1, 2, 3)], [sequence(1, 2), sequence(3)], [sequence(3), sequence(1, 2)]),
        *([sequence(1, 2), sequence(3, learnt=False)], [sequence(1), sequence(2, 3)], [(sequence(1), sequence(2, 3))]),
        *([(sequence(1), True)], [(sequence(1), False)], [sequence(1)], [("a", "b")], [("ab", "")], ["a", "b"]),
        *([Ranking("p", ("a", "b"))], [Ranking("p", ("a", "b"), 1.0)], [Ranking("p", ("a", "b"), annotator="None")]),
    ]
    for one, other in combinations(different, 2):
        assert digest_of(one) != digest_of(other)


def test_what_has_no_digest_is_told() -> None:
    with pytest.raises(TypeError, match="a set in it"):
        digest_of([{1}])
