"""Duplicates in a data set: rows that are the same or nearly, and prompts that are on both sides of a split."""

from collections.abc import Sequence
from dataclasses import dataclass

from plumbob.data.audit.audited_rows import AuditedRow
from plumbob.data.audit.near_duplicates import near_between, near_within
from plumbob.data.audit.word_shingles import shingles_of, words_of

NUM_EXAMPLES = 10


@dataclass(frozen=True)
class FoundDuplicates:
    """Rows that say what an earlier one says.

    Attributes:
        same: indices of rows whose text stands in an earlier row.
        near: (index, index of the earlier row, similarity) of those whose text nearly does.
        num_prompts: different prompts.
    """

    same: tuple[int, ...]
    near: tuple[tuple[int, int, float], ...]
    num_prompts: int

    def as_dict(self, rows: Sequence[AuditedRow]) -> dict[str, object]:
        shown = self.near[:NUM_EXAMPLES]
        return {
            "num_same": len(self.same),
            "num_near": len(self.near),
            "num_prompts": self.num_prompts,
            "same_examples": [rows[index].label for index in self.same[:NUM_EXAMPLES]],
            "near_examples": [
                {"row": rows[index].label, "like": rows[other].label, "similarity": similarity}
                for index, other, similarity in shown
            ],
        }


def duplicates_in(rows: Sequence[AuditedRow], similarity: float) -> FoundDuplicates:
    first: dict[str, int] = {}
    same = []
    for index, row in enumerate(rows):
        if first.setdefault(row.text, index) != index:
            same.append(index)
    indices = list(first.values())
    near = near_within(list(first), [_response_shingles(rows[index]) for index in indices], similarity)
    return FoundDuplicates(
        tuple(same),
        tuple((indices[one.text], indices[one.other], one.similarity) for one in near),
        len({row.prompt or row.text for row in rows}),
    )


def _response_shingles(row: AuditedRow) -> frozenset[str]:
    """Each with the index of its response: a pair that was preferred the other way is no duplicate."""
    return frozenset(
        f"{index} {shingle}" for index, text in enumerate(row.responses) for shingle in shingles_of(words_of(text))
    )


@dataclass(frozen=True)
class FoundLeaks:
    """Rows whose prompt is held out too.

    Attributes:
        same: indices of training rows.
        near: the same of those whose prompt is nearly a held-out one.
    """

    same: tuple[int, ...]
    near: tuple[int, ...]

    def as_dict(self, rows: Sequence[AuditedRow]) -> dict[str, object]:
        return {
            "num_same": len(self.same),
            "num_near": len(self.near),
            "same_examples": [rows[index].label for index in self.same[:NUM_EXAMPLES]],
            "near_examples": [rows[index].label for index in self.near[:NUM_EXAMPLES]],
        }


def leaks_between(rows: Sequence[AuditedRow], heldout: Sequence[AuditedRow], similarity: float) -> FoundLeaks:
    """By prompts; of documents by their texts."""
    apart = {_key(row) for row in heldout}
    same = tuple(index for index, row in enumerate(rows) if _key(row) in apart)
    near = near_between(map(_key, rows), apart, similarity)
    return FoundLeaks(same, tuple(index for index, row in enumerate(rows) if _key(row) in near))


def _key(row: AuditedRow) -> str:
    return row.prompt or row.text
