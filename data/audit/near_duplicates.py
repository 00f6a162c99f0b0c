"""Texts that are nearly the same, by MinHash and locality-sensitive hashing; each find is then compared exactly."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plumbob.data.audit.word_shingles import jaccard, telling_shingles

NUM_HASHES = 128
"""Of a text. They are cut into bands, and two texts are compared where one band of both is the same."""

MOST_MISSED = 0.001
"""The chance that two texts which are just similar enough have no band in common."""

NO_SHINGLES: frozenset[str] = frozenset()

MAX_COMPARED = 200
"""Texts with a band in common that one text is compared with at most, the likeliest first."""


@dataclass(frozen=True)
class NearText:
    """A text and the one that it is most like.

    Attributes:
        text, other: their indices.
        similarity: Jaccard's, of their word shingles, computed and not estimated.
    """

    text: int
    other: int
    similarity: float


def bands_for(similarity: float) -> tuple[int, int]:
    """Bands and hashes in each: as selective as `MOST_MISSED` allows.

    Two texts of similarity s have one of b bands of r hashes in common with probability 1 - (1 - s^r)^b (Leskovec et
    al., Mining of Massive Datasets, section 3.4.2).
    """
    for rows in range(NUM_HASHES, 1, -1):
        bands = NUM_HASHES // rows
        if (1 - similarity**rows) ** bands <= MOST_MISSED:
            return bands, rows
    return NUM_HASHES, 1


class SimilarTexts:
    """Texts by their shingles, among which those are looked for that are like another."""

    def __init__(self, similarity: float) -> None:
        from datasketch import MinHash, MinHashLSH  # It takes SciPy along: half a second where nothing is compared.

        self._similarity = similarity
        bands, rows = bands_for(similarity)
        self._empty: Any = MinHash(bands * rows, hashfunc=zlib.crc32)
        self._index: Any = MinHashLSH(num_perm=bands * rows, params=(bands, rows))
        self._added: dict[int, tuple[frozenset[str], Any, frozenset[str]]] = {}

    def sketch(self, shingles: frozenset[str]) -> Any:
        sketch = self._empty.copy()
        sketch.update_batch([shingle.encode(errors="replace") for shingle in shingles])
        return sketch

    def add(self, index: int, shingles: frozenset[str], sketch: Any, part: frozenset[str] = NO_SHINGLES) -> None:
        """`part` has the shingles of a part of the text that has to be similar too; none where no part has to."""
        self._index.insert(index, sketch)
        self._added[index] = (shingles, sketch.hashvalues, part)

    def nearest(
        self, shingles: frozenset[str], sketch: Any, part: frozenset[str] = NO_SHINGLES
    ) -> tuple[int, float] | None:
        """The index and the similarity of the added text that is most like this one; None where none is enough."""
        indices = sorted(self._index.query(sketch))
        if len(indices) > MAX_COMPARED:
            likeness = [np.count_nonzero(self._added[index][1] == sketch.hashvalues) for index in indices]
            indices = [indices[at] for at in np.argsort(likeness, kind="stable")[::-1][:MAX_COMPARED]]
        alike = [index for index in indices if self._has_like_part(index, part)]
        compared = [(jaccard(shingles, self._added[index][0]), -index) for index in alike]
        best, index = max(compared, default=(0.0, 0))
        return (-index, best) if best >= self._similarity else None

    def _has_like_part(self, index: int, part: frozenset[str]) -> bool:
        other = self._added[index][2]
        return part == other or jaccard(part, other) >= self._similarity


def near_within(texts: Sequence[str], parts: Sequence[frozenset[str]], similarity: float) -> list[NearText]:
    """The texts that are nearly one before them which is itself none of these. One without a word is like none.

    Args:
        parts: of each text the shingles of a part that has to be similar too, such as the responses behind a long
            prompt.
    """
    similar = SimilarTexts(similarity)
    found = []
    for index, (shingles, part) in enumerate(zip(telling_shingles(texts), parts, strict=True)):
        if not shingles:
            continue
        sketch = similar.sketch(shingles)
        near = similar.nearest(shingles, sketch, part)
        if near is None:
            similar.add(index, shingles, sketch, part)
        else:
            found.append(NearText(index, *near))
    return found


def near_between(texts: Iterable[str], others: Iterable[str], similarity: float) -> Mapping[str, str]:
    """Of the distinct texts those that are nearly one of the others -> that one. A text is not nearly itself."""
    known = list(dict.fromkeys(others))
    apart = set(known)
    looked_for = [text for text in dict.fromkeys(texts) if text not in apart]
    if not known or not looked_for:
        return {}
    sets = telling_shingles([*known, *looked_for])
    similar = SimilarTexts(similarity)
    for index, shingles in enumerate(sets[: len(known)]):
        if shingles:
            similar.add(index, shingles, similar.sketch(shingles))
    found = {}
    for text, shingles in zip(looked_for, sets[len(known) :], strict=True):
        near = similar.nearest(shingles, similar.sketch(shingles)) if shingles else None
        if near is not None:
            found[text] = known[near[0]]
    return found
