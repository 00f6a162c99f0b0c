"""The whole report: duplicates, leaks and benchmarks that were planted in files, and digests of these."""

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from plumbob.configs.settings.data import ReadingSettings
from plumbob.configs.settings.stewardship.data_checks import DataCheckSettings
from plumbob.core.errors import UserError
from plumbob.data.audit.audited_rows import read_audited
from plumbob.data.audit.data_report import report_files
from plumbob.data.audit.found_duplicates import duplicates_in

DATA = Path(__file__).parents[5] / "shared" / "data"
LONG = "please explain in your own words how the tides of the sea come about and why there are two of them each day"


def write(path: Path, rows: Sequence[object]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def numbered(number: int) -> dict[str, str]:
    return {
        "prompt": f"Question {number} of {number * 7}?",
        "chosen": f"good {number}",
        "rejected": f"bad {number} {number}",
    }


def test_what_was_planted_is_counted(tmp_path: Path) -> None:
    rows = [numbered(number) for number in range(40)]
    rows += [
        rows[3],
        {**rows[4], "prompt": rows[4]["prompt"].upper()},
        {"prompt": LONG, "chosen": "a", "rejected": "b c"},
    ]
    rows += [
        {"prompt": "Leaked?", "chosen": "yes", "rejected": "no"},
        {"prompt": "Leaked?", "chosen": "no", "rejected": "yes"},
    ]
    train = write(tmp_path / "train.jsonl", [*rows, {"prompt": "broken"}, "no object"])
    held = write(tmp_path / "held.jsonl", [{"prompt": "Leaked?", "chosen": "c", "rejected": "d"}, {"prompt": "LEAKED"}])
    bench = write(tmp_path / "bench.jsonl", [{"q": f"Now {LONG}"}, {"q": "short"}])
    found = report_files([train], [held], DataCheckSettings(benchmarks=(bench,)))
    # A row that has a prompt alone is read as one.
    assert found.num_rows == 46 and "1 of 47 rows cannot be read, such as train.jsonl row 47" in found.findings[0]
    assert (found.duplicates["num_same"], found.duplicates["num_near"]) == (1, 1)
    assert found.duplicates["near_examples"] == [
        {"row": "train.jsonl row 42", "like": "train.jsonl row 5", "similarity": 1.0}
    ]
    assert found.leaks is not None and (found.leaks["num_same"], found.leaks["num_near"]) == (2, 0)
    assert [(one["num_shared"], one["num_rows_found"], one["num_short"]) for one in found.benchmarks] == [(1, 1, 1)]
    assert found.labels is not None and found.labels["contradictory"] == {
        "num": 1,
        "examples": ["train.jsonl row 44, train.jsonl row 45"],
    }
    assert found.personal is None
    assert [(one["role"], one["num_rows"]) for one in found.files] == [
        ("training", 47),
        ("held out", 2),
        ("benchmark", 2),
    ]
    assert found.files[0]["sha256"] == hashlib.sha256(Path(train).read_bytes()).hexdigest()
    assert any("2 training rows have a held-out prompt" in line for line in found.findings)
    assert json.loads(json.dumps(found.as_dict()))["num_rows"] == 46


def test_rows_of_all_forms_are_read(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a?", "answers": ["x", "y"], "scores": [1, 2], "annotator": "ann"},
        {"prompt": "a?", "completion": "x", "label": True},
        {"prompt": "a?", "response": "x", "score": 3},
        {"text": "a document", "label": "spam"},
        {"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "x"}]},
        {"question": "a?"},
    ]
    read = read_audited(write(tmp_path / "rows.jsonl", rows), ReadingSettings())
    assert [row.form for row in read.rows] == ["ranking", "labelled", "scored", "text", "demonstration", "prompt"]
    assert read.rows[0].responses == ("y", "x") and (read.rows[0].best_index, read.rows[0].annotator) == (1, "ann")
    assert read.rows[4].question == "a?" and read.rows[4].prompt == "\n\nHuman: a?\n\nAssistant:"
    path = write(tmp_path / "other.jsonl", [{"foo": "bar"}])
    with pytest.raises(UserError, match=r"none of its 1 rows can be read, such as other\.jsonl row 1"):
        report_files([path])
    assert report_files([path], reading=ReadingSettings(columns={"prompt": "foo"})).num_rows == 1


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real data beside the checkout")
def test_planted_copies_are_found_among_human_pairs(tmp_path: Path) -> None:
    with gzip.open(DATA / "hh-harmless-2000.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in list(file)[:300]]
    planted = [
        {side: text.replace(" the ", " THE ", 1) + ("" if side == "chosen" else "!") for side, text in row.items()}
        for row in rows[:50]
    ]
    before = read_audited(write(tmp_path / "a.jsonl", rows), ReadingSettings()).rows
    after = read_audited(write(tmp_path / "b.jsonl", [*rows, *planted]), ReadingSettings()).rows
    known, found = duplicates_in(before, 0.8), duplicates_in(after, 0.8)
    assert {place for place, _, _ in found.near} - {place for place, _, _ in known.near} == set(range(300, 350))
