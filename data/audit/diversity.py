"""What a data set is about and in whose words: languages, lengths, topics, openings, annotators, groups of people."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from plumbob.data.audit.audited_rows import AuditedRow
from plumbob.data.audit.demographic_terms import mentions
from plumbob.data.audit.word_shingles import words_of
from plumbob.data.texts.language_identifier import language_identifier

NUM_LISTED = 15
MAX_SAMPLED = 5000
"""Rows of which languages, topics and openings are told, spread evenly over the data."""

LEAST_LETTERS = 24
"""Of a text whose language is told."""

QUANTILES = {"least": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "most": 1.0}

_COMMON_WORDS = """
about after again all also and any are assistant because been but can could did does don for from get give had has have
her here him his how human into its just know let like make more most much need not now one other our out over people
say she should some such tell than that the their them then there these they thing think this those time too use very
want was way well were what when where which who why will with would yes you your
"""
COMMON = frozenset(_COMMON_WORDS.split())
"""Words that say nothing of a topic."""


def sampled(rows: Sequence[AuditedRow], most: int = MAX_SAMPLED) -> list[AuditedRow]:
    """All, or so many spread evenly."""
    if len(rows) <= most:
        return list(rows)
    return [rows[index * len(rows) // most] for index in range(most)]


def diversity_of(rows: Sequence[AuditedRow]) -> dict[str, Any]:
    """Counts of rows, but lengths in words."""
    some = sampled(rows)
    texts = [row.text for row in some]
    return {
        "num_sampled": len(some),
        "forms": dict(Counter(row.form for row in rows).most_common()),
        "languages": languages_of(texts),
        "lengths": _lengths(rows),
        "topics": topics_of(texts),
        "first_words": _first_words(some),
        "annotators": dict(Counter(row.annotator for row in rows if row.annotator is not None).most_common()),
        "groups": mentions(texts),
    }


def languages_of(texts: Sequence[str]) -> dict[str, int]:
    """ISO 639-1 code -> texts; those that are too short to tell are "too short"."""
    identifier = language_identifier()
    found = Counter(
        identifier.classify(text)[0] if len(text.strip()) >= LEAST_LETTERS else "too short" for text in texts
    )
    return dict(found.most_common())


def topics_of(texts: Sequence[str]) -> list[dict[str, Any]]:
    """The words that tell most of what the texts are about, by the share of the TF-IDF that they have.

    TF-IDF of a word in a text: its count there x log(texts / texts that have it) (Spaerck Jones 1972).
    """
    counts = [Counter(word for word in words_of(text) if _tells(word)) for text in texts]
    having = Counter(word for count in counts for word in count)
    weights: Counter[str] = Counter()
    for count in counts:
        for word, times in count.items():
            if having[word] > 1:
                weights[word] += times * math.log(len(texts) / having[word])  # type: ignore[assignment]
    return [{"word": word, "num_rows": having[word]} for word, _ in weights.most_common(NUM_LISTED)]


def _tells(word: str) -> bool:
    return len(word) > 2 and word.isalpha() and word not in COMMON


def _lengths(rows: Sequence[AuditedRow]) -> dict[str, dict[str, int]]:
    sides = {
        "prompt": [row.prompt for row in rows if row.prompt],
        "response": [response for row in rows for response in row.responses],
    }
    return {name: _quantiles([len(text.split()) for text in texts]) for name, texts in sides.items() if texts}


def _quantiles(values: Sequence[int]) -> dict[str, int]:
    found = np.quantile(np.array(values), list(QUANTILES.values()), method="nearest")
    return {name: int(value) for name, value in zip(QUANTILES, found, strict=True)}


def _first_words(rows: Sequence[AuditedRow]) -> dict[str, int]:
    """Of the person's last turn, two words."""
    openings = (" ".join(row.question.lower().split()[:2]) for row in rows if row.prompt)
    return dict(Counter(opening for opening in openings if opening).most_common(NUM_LISTED))
