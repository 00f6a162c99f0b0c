"""Texts that share a run of words with a benchmark: n-grams, as in the appendix of GPT-3's report on contamination."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from plumbob.data.audit.word_shingles import words_of
from plumbob.data.reading.file_formats.formats import iterate_rows

SHORTEST_WORDS = 8
"""Of a benchmark's text that is looked for as a whole, since it has fewer words than an n-gram. GPT-3's report has 8 as
the least n as well (Brown et al. 2020, appendix C)."""


@dataclass(frozen=True)
class BenchmarkNgrams:
    """The n-grams of a benchmark's texts, by their lengths.

    Attributes:
        path: of the benchmark.
        lengths: in words, of the n-grams that there are: n, and those of shorter texts.
        ngrams: hash of an n-gram's words -> the number of the first row that has it.
        num_rows: of the benchmark.
        num_short: of its rows those all of whose texts are too short to be looked for.
    """

    path: str
    lengths: tuple[int, ...]
    ngrams: dict[int, int]
    num_rows: int
    num_short: int

    def found_in(self, text: str) -> tuple[int, str] | None:
        """The row of the benchmark that the text shares an n-gram with, and that n-gram; None where there is none."""
        words = words_of(text)
        for length in self.lengths:
            for start in range(len(words) - length + 1):
                row = self.ngrams.get(hash(tuple(words[start : start + length])))
                if row is not None:
                    return row, " ".join(words[start : start + length])
        return None


def read_benchmark(path: str, ngram_words: int) -> BenchmarkNgrams:
    """All texts of all rows, whatever their columns are called. UserError where the file cannot be read."""
    ngrams: dict[int, int] = {}
    lengths, num_rows, num_short = set[int](), 0, 0
    for num_rows, row in enumerate(iterate_rows(path), 1):
        is_short = True
        for text in texts_within(row.fields):
            words = words_of(text)
            length = min(ngram_words, len(words))
            if length < SHORTEST_WORDS:
                continue
            is_short = False
            lengths.add(length)
            for start in range(len(words) - length + 1):
                ngrams.setdefault(hash(tuple(words[start : start + length])), num_rows)
        num_short += is_short
    return BenchmarkNgrams(path, tuple(sorted(lengths, reverse=True)), ngrams, num_rows, num_short)


def texts_within(value: Any) -> Iterator[str]:
    """All texts in a value of a row: itself, those of its lists and those of its mappings, not their names."""
    match value:
        case str():
            yield value
        case list() | tuple():
            for item in value:
                yield from texts_within(item)
        case dict():
            for item in value.values():
                yield from texts_within(item)


@dataclass(frozen=True)
class SharedNgram:
    """A text that shares an n-gram with a benchmark.

    Attributes:
        index: of the text.
        path: of the benchmark.
        row: of the benchmark, from 1.
        words: the n-gram.
    """

    index: int
    path: str
    row: int
    words: str


def shared_ngrams(texts: Iterable[str], benchmarks: Sequence[BenchmarkNgrams]) -> list[SharedNgram]:
    """At most one a text and benchmark."""
    found = []
    for index, text in enumerate(texts):
        for benchmark in benchmarks:
            shared = benchmark.found_in(text)
            if shared is not None:
                found.append(SharedNgram(index, benchmark.path, *shared))
    return found
