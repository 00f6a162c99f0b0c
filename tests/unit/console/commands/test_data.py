"""`plumbob data`: the page and its JSON, cleaned files, and messages about what was given."""

import json
from pathlib import Path

import pytest

from plumbob.console.cli import main

PAIRS = [
    {"prompt": f"Question {number}?", "chosen": f"a longer answer {number}", "rejected": str(number), "worker": "ann"}
    for number in range(40)
]
HOSTILE = {
    "prompt": "<script>alert(1)</script>\x1b[31m",
    "chosen": "<img src=x onerror=y>",
    "rejected": "&",
    "worker": "<script>alert(2)</script>",
}


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in [*PAIRS, PAIRS[0], HOSTILE]))
    return str(path)


def test_a_report_is_a_page_that_escapes_rows(pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "report", pairs, "--output", str(tmp_path / "out"), "--heldout", pairs]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("42 rows, 41 different prompts\n- 1 of 42 rows are the same as an earlier one")
    assert "the longer response is preferred in 100.0% [" in printed and "\x1b" not in printed
    page = (tmp_path / "out/data_report.html").read_text()
    assert "<script" not in page and "<img" not in page
    assert "&lt;script&gt;" in page and "default-src" in page
    report = json.loads((tmp_path / "out/data_report.json").read_text())
    assert report["leaks"]["num_same"] == 42 and report["files"][0]["sha256"] in page


def test_as_json_for_scripts(pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "report", pairs, "--output", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["report"] == str(tmp_path / "data_report.html") and found["duplicates"]["num_same"] == 1
    assert main(["data", "clean", pairs, "--output", str(tmp_path / "out"), "--json"]) == 0
    cleaned = json.loads(capsys.readouterr().out)
    assert cleaned["left_out"]["duplicate"] == 1 and cleaned["outputs"][0]["num_rows"] == 41


def test_clean_says_what_it_left_out(pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["data", "clean", pairs, "--output", str(out), "--keep", "duplicate"]) == 0
    assert capsys.readouterr().out == f"{out}/pairs.jsonl: 42 rows\nleft out: nothing\n"
    assert main(["data", "clean", pairs, "--output", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}/pairs.jsonl: 41 rows\nleft out: 1 duplicate\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["report", "--similarity", "0.2"], "--similarity=0.2: expected a number from 0.5 to 1"),
        (["report", "--ngram-words", "3"], "--ngram-words=3: expected a whole number from 8 to 100"),
        (["report", "--column", "prompt"], "--column=prompt: expected NAME=COLUMN"),
        (["report", "--column", "promt=x"], "'promt' is not a field name"),
        (["clean", "--key", "key.txt"], "--key=key.txt: it is for pseudonyms"),
        (["clean", "--personal", "--key", "absent.txt"], "--key=absent.txt: cannot be read"),
        (["report", "--benchmark", "absent.jsonl"], "absent.jsonl: does not exist"),
    ],
)
def test_what_is_wrong_is_one_message(
    options: list[str], message: str, pairs: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(pairs).parent)
    assert main(["data", options[0], pairs, *options[1:]]) == 2
    assert message in capsys.readouterr().err
