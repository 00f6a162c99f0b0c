"""Labels that contradict one another, and biases of annotators, by hand."""

import pytest

from plumbob.core.statistics import proportion_interval
from plumbob.data.audit.audited_rows import AuditedRow
from plumbob.data.audit.label_quality import contradictory, first_wins, identical, labels_of, longer_wins


def pair(
    chosen: str, rejected: str, prompt: str = "Why?", annotator: str | None = None, label: str = "row"
) -> AuditedRow:
    return AuditedRow(label, "pair", prompt, (chosen, rejected), annotator)


def test_contradictions_are_of_one_prompt_whatever_the_spelling() -> None:
    rows = [
        pair("Yes.", "no"),
        pair("No", "yes"),
        pair("no", "yes", prompt="Why not?"),
        AuditedRow("x", "demonstration", "Why?", ("no",)),
        pair("yes", "maybe"),
        AuditedRow("r", "ranking", "Why?", ("perhaps", "maybe", "yes")),
    ]
    # Row 1 prefers no to yes, the ranking maybe to yes, which row 4 prefers the other way.
    assert contradictory(rows) == [(0, 1), (4, 5)]


def test_identical_responses_are_found_whatever_the_spelling() -> None:
    assert identical([pair("Yes.", "yes"), pair("yes", "no"), pair("", "")]) == [0, 2]


def test_the_longer_wins_by_words_and_ties_do_not_count() -> None:
    rows = [pair("a b c", "a"), pair("a b", "a b c"), pair("a b c d", "a"), pair("a", "b")]
    found = longer_wins(rows)
    assert found is not None and found[1] == 3
    assert found[0] == proportion_interval(2, 3)
    assert longer_wins([pair("a", "b")]) is None


def test_where_the_best_stood_is_known_of_two_that_kept_their_order() -> None:
    rows = [AuditedRow("x", "ranking", "Why?", ("a", "b"), best_index=place) for place in (0, 0, 0, 1)]
    rows += [pair("a", "b"), AuditedRow("x", "ranking", "Why?", ("a", "b", "c"), best_index=0)]
    found = first_wins(rows)
    assert found is not None and (found[0].mean, found[1]) == (0.75, 4)
    assert first_wins([pair("a", "b")]) is None


def test_an_annotator_is_listed_from_thirty_pairs_on() -> None:
    rows = [pair("a b", "a", annotator="long") for _ in range(30)]
    rows += [pair("a", "a b", annotator="short") for _ in range(29)]
    found = labels_of(rows)
    assert found is not None and found["num_compared"] == 59
    assert list(found["longer_wins_by_annotator"]) == ["long"]
    assert found["longer_wins_by_annotator"]["long"]["share"] == 1.0
    assert found["longer_wins"]["share"] == pytest.approx(30 / 59)
    assert found["contradictory"]["num"] == 1 and found["first_wins"] is None
    assert labels_of([AuditedRow("x", "prompt", "Why?")]) is None
