"""Runs of words that training texts share with a benchmark."""

import json
from pathlib import Path

from plumbob.data.audit.benchmark_overlap import read_benchmark, shared_ngrams, texts_within

QUESTION = "A train leaves the old station at nine and travels north for sixty miles before it stops at a bridge"
SHORT = "how many apples does the farmer have left"
"""Eight words."""


def benchmark(tmp_path: Path) -> str:
    path = tmp_path / "benchmark.jsonl"
    rows = [{"question": QUESTION, "answer": "42"}, {"messages": [{"role": "user", "content": SHORT}]}, {"q": "Who?"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_all_texts_of_a_row_are_looked_at() -> None:
    assert list(texts_within({"a": "x", "b": [{"c": "y"}, 3, ("z",)], "d": None})) == ["x", "y", "z"]


def test_thirteen_words_in_a_row_are_found_wherever_they_stand(tmp_path: Path) -> None:
    read = read_benchmark(benchmark(tmp_path), 13)
    assert (read.num_rows, read.num_short, read.lengths) == (3, 1, (13, 8))
    words = QUESTION.lower().split()
    texts = [
        f"Solve this: {QUESTION}.",
        "Before. " + " ".join(words[3:16]).upper() + ", after",
        " ".join(words[3:15]),
        " ".join([*words[:10], "quickly", *words[10:]]),
        f"{SHORT}?",
        "How many apples does a farmer have left",
    ]
    found = shared_ngrams(texts, [read])
    # The first, thirteen words of it, and the short one whole; twelve words, or ten each side of a new one, are not.
    assert [(one.index, one.row) for one in found] == [(0, 1), (1, 1), (4, 2)]
    assert found[1].words == " ".join(words[3:16]) and found[2].words == SHORT
    # With eight words as the n the twelve are found, and so are both sides of the new one.
    assert [one.index for one in shared_ngrams(texts, [read_benchmark(read.path, 8)])] == [0, 1, 2, 3, 4]
