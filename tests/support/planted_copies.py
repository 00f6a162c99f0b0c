"""Copies planted into texts, edited in known ways: how many are found as near duplicates, and as a benchmark's texts.

`python -m tests.support.planted_copies PAIRS QUESTIONS` prints the tables of docs/stewardship.md: PAIRS has the texts,
QUESTIONS the benchmark.
"""

import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from plumbob.configs.settings.data import ReadingSettings
from plumbob.data.audit.audited_rows import read_audited
from plumbob.data.audit.benchmark_overlap import read_benchmark, shared_ngrams
from plumbob.data.audit.near_duplicates import near_within
from plumbob.data.audit.word_shingles import jaccard, telling_shingles

NUM_PLANTED = 200
SIMILARITY = 0.8

Edit = Callable[[list[str], random.Random], list[str]]


def _with_words_changed(share: float) -> Edit:
    """That share of the words, at least one."""

    def edit(words: list[str], rng: random.Random) -> list[str]:
        chosen = set(rng.sample(range(len(words)), max(1, round(share * len(words)))))
        return [f"other{rng.randrange(1000)}" if index in chosen else word for index, word in enumerate(words)]

    return edit


def _with_numbers_changed(words: list[str], rng: random.Random) -> list[str]:
    return [str(rng.randrange(1000, 9999)) if any(letter.isdigit() for letter in word) else word for word in words]


EDITS: Mapping[str, Edit] = {
    "other case and punctuation": lambda words, _: [f"{word.upper()}," for word in words],
    "one word changed": _with_words_changed(0.0),
    "2% of the words changed": _with_words_changed(0.02),
    "5% of the words changed": _with_words_changed(0.05),
    "10% of the words changed": _with_words_changed(0.1),
    "a sentence put before it": lambda words, _: ["Please", "help", "me", "with", "this", "one:", *words],
    "the first half alone": lambda words, _: words[: len(words) // 2],
    "all numbers changed": _with_numbers_changed,
}


def near_rates(texts: Sequence[str], edit: Edit, seed: int = 0) -> tuple[int, int, int]:
    """(copies that are at least as similar as `SIMILARITY`, those of them that are found, others that are found)."""
    rng = random.Random(seed)
    sources = rng.sample(range(len(texts)), min(NUM_PLANTED, len(texts)))
    copies = [" ".join(edit(texts[source].split(), rng)) for source in sources]
    together = [*texts, *copies]
    shingles = telling_shingles(together)
    found = {one.text for one in near_within(together, [frozenset()] * len(together), SIMILARITY)}
    similar = {
        len(texts) + number
        for number, source in enumerate(sources)
        if jaccard(shingles[source], shingles[len(texts) + number]) >= SIMILARITY
    }
    planted = set(range(len(texts), len(together)))
    return len(similar), len(similar & found), len((planted - similar) & found)


def main(pairs: str, questions: str) -> None:
    texts = list(dict.fromkeys(row.text for row in read_audited(pairs, ReadingSettings()).rows))
    asked = [row.prompt for row in read_audited(questions, ReadingSettings()).rows]
    print(f"near duplicates, {NUM_PLANTED} copies of each kind among {len(texts):,} texts:\n")
    print("| copy | similar enough | of them found | others found |\n|---|---|---|---|")
    for name, edit in EDITS.items():
        similar, found, others = near_rates(texts, edit)
        print(f"| {name} | {similar} of {NUM_PLANTED} | {found} | {others} |")
    benchmark = read_benchmark(questions, 13)
    print(f"\na benchmark's texts, {NUM_PLANTED} copies of each kind, each behind a training text:\n")
    print("| copy | found |\n|---|---|")
    rng = random.Random(1)
    for name, edit in EDITS.items():
        planted = [" ".join(edit(text.split(), rng)) for text in rng.sample(asked, NUM_PLANTED)]
        found = shared_ngrams([f"{text}\n{copy}" for text, copy in zip(texts, planted, strict=False)], [benchmark])
        print(f"| {name} | {len(found)} of {NUM_PLANTED} |")
    began = time.monotonic()
    wrong = shared_ngrams(texts, [benchmark])
    print(f"\nof the {len(texts):,} texts themselves {len(wrong)} share one, in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
