"""Texts as their words, and as the sets of words in a row by which they are compared."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

SHINGLE_WORDS = 3
"""Words in a row. A text of n words that differs in one of them in the middle has a similarity of (n - 5) / (n + 1)."""

FRAME, LEAST_FRAMED = 0.25, 20
"""The share of the texts in which a shingle is of their template, where there are so many texts at least."""

WORD = re.compile(r"\w+|[^\w\s.,;:!?'\"’“”…-]")
"""A word, a number or a sign. What ends or joins sentences is no difference; `+` and `<` are."""


def words_of(text: str) -> list[str]:
    """In small letters."""
    return WORD.findall(text.lower())


def shingles_of(words: Sequence[str]) -> frozenset[str]:
    """All runs of `SHINGLE_WORDS` words; of a shorter text itself. Empty where there is no word."""
    if len(words) <= SHINGLE_WORDS:
        return frozenset([" ".join(words)] if words else ())
    return frozenset(" ".join(words[start : start + SHINGLE_WORDS]) for start in range(len(words) - SHINGLE_WORDS + 1))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Shingles that both have, over those that any has: 0 to 1."""
    common = len(one & other)
    return common / (len(one) + len(other) - common) if common else 0.0


def telling_shingles(texts: Iterable[str]) -> list[frozenset[str]]:
    """The shingles of each text, without those that `FRAME` of the texts or more have.

    What a template puts around a prompt, such as a system message, would make any two of them alike. A text that is
    nothing else keeps all.
    """
    sets = [shingles_of(words_of(text)) for text in texts]
    if len(sets) < LEAST_FRAMED:
        return sets
    times = Counter(shingle for shingles in sets for shingle in shingles)
    frame = {shingle for shingle, count in times.items() if count >= FRAME * len(sets)}
    return [shingles - frame or shingles for shingles in sets] if frame else sets
