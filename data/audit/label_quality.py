"""How far the labels of pairs and rankings can be trusted: contradictions, identical responses, annotators' biases."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

from plumbob.core.statistics import Interval, proportion_interval
from plumbob.data.audit.audited_rows import AuditedRow
from plumbob.data.audit.word_shingles import words_of

COMPARING = ("pair", "ranking")
"""Forms of rows that compare responses."""

LEAST_COMPARED = 30
"""Pairs of an annotator of whom a bias is told."""

NUM_EXAMPLES = 10


def labels_of(rows: Sequence[AuditedRow]) -> dict[str, Any] | None:
    """None where no row compares responses."""
    compared = [row for row in rows if row.form in COMPARING]
    if not compared:
        return None
    same, both_ways = identical(compared), contradictory(compared)
    annotators = sorted({row.annotator for row in compared if row.annotator is not None})
    by_annotator = {name: longer_wins(row for row in compared if row.annotator == name) for name in annotators}
    return {
        "num_compared": len(compared),
        "identical": {"num": len(same), "examples": [compared[index].label for index in same[:NUM_EXAMPLES]]},
        "contradictory": {
            "num": len(both_ways),
            "examples": [", ".join(compared[index].label for index in indices) for indices in both_ways[:NUM_EXAMPLES]],
        },
        "longer_wins": _as_dict(longer_wins(compared)),
        "longer_wins_by_annotator": {
            name: _as_dict(found)
            for name, found in by_annotator.items()
            if found is not None and found[1] >= LEAST_COMPARED
        },
        "first_wins": _as_dict(first_wins(compared)),
    }


def contradictory(rows: Sequence[AuditedRow]) -> list[tuple[int, ...]]:
    """Of each two responses to one prompt that were preferred both ways, the indices of the rows."""
    ways: dict[tuple[str, frozenset[str]], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, row in enumerate(rows):
        if row.form not in COMPARING:
            continue
        spelt = [_spelling(response) for response in row.responses]
        for better, worse in combinations(spelt, 2):
            if better != worse:
                ways[_spelling(row.prompt), frozenset((better, worse))][better].append(index)
    return [
        tuple(sorted({index for indices in both.values() for index in indices}))
        for both in ways.values()
        if len(both) > 1
    ]


def identical(rows: Sequence[AuditedRow]) -> list[int]:
    """The indices of comparisons of which two responses are the same but for case and punctuation."""
    return [
        index
        for index, row in enumerate(rows)
        if row.form in COMPARING and len({_spelling(one) for one in row.responses}) < len(row.responses)
    ]


def longer_wins(rows: Iterable[AuditedRow]) -> tuple[Interval, int] | None:
    """How often the response with more words is the preferred one, and of how many pairs that differ in their words.

    Of a ranking the best against the worst. None where there are none.
    """
    lengths = [(len(row.responses[0].split()), len(row.responses[-1].split())) for row in rows]
    wins = [best > worst for best, worst in lengths if best != worst]
    return (proportion_interval(sum(wins), len(wins)), len(wins)) if wins else None


def first_wins(rows: Iterable[AuditedRow]) -> tuple[Interval, int] | None:
    """How often the best of two is the one that stood first; of rows that keep the order in which they were shown."""
    wins = [row.best_index == 0 for row in rows if row.best_index is not None and len(row.responses) == 2]
    return (proportion_interval(sum(wins), len(wins)), len(wins)) if wins else None


def _as_dict(found: tuple[Interval, int] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    interval, num = found
    return {"share": interval.mean, "ci95": interval.ci95, "num": num}


def _spelling(text: str) -> str:
    return " ".join(words_of(text)) or text
