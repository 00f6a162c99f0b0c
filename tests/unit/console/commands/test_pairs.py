"""`plumbob pairs`: what it writes is what a run on pairs reads."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from plumbob.configs.settings.data import ReadingSettings
from plumbob.console.cli import main
from plumbob.data.reading.readers import read_pairs
from plumbob.data.records import PreferencePair
from plumbob.data.texts.chat_text import plain_dialogue
from plumbob.rollout.journal import write_step
from tests.support.finished_run import HOSTILE, LONG_WORD, finished_run, journal_rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four responses to each of eight prompts at steps 1 and 30, of scores 0 to 3; the first of each was cut."""
    folder = finished_run(tmp_path / "rloo", "ppo", {})
    (folder / "policy").mkdir()
    return folder


def test_the_pairs_are_read_as_they_were_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pairs", str(folder)]) == 0
    path = folder / "pairs.jsonl"
    said = capsys.readouterr().out.splitlines()
    # A prompt's name is the same at both steps.
    assert said == [
        f"{path}: 8 pairs of 8 prompts",
        "left out: 0 prompts without two responses that are so far apart",
        "left out: 16 responses that were cut or are empty",
        f"next: plumbob run dpo policy.model={folder}/policy data.pairs={path} data.rendered=true",
    ]
    read = read_pairs(path, ReadingSettings(rendered=True), plain_dialogue)
    prompt = "Step 1, question 0: what does the Tarnis run on?"
    assert read.records[0] == PreferencePair(prompt, "The Tarnis runs on diesel.", HOSTILE)
    assert len(read.records) == 8
    assert json.loads(path.read_text().splitlines()[0])["margin"] == 2.0


def test_steps_margin_part_and_file_are_as_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [replace(row, rewards={"raw": row.score, "short": -row.score}) for row in journal_rows(31, num_prompts=2)]
    write_step(folder / "rollouts", 31, rows)
    path = folder / "other.jsonl"
    asked = ["--part", "short", "--margin", "2", "--from-step", "31", "--output", str(path)]
    assert main(["pairs", str(folder), "--json", *asked]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["num_pairs"], found["num_prompts"], found["num_close"], found["num_unusable"]) == (2, 2, 0, 2)
    assert found["pairs"] == str(path) and found["next"].startswith("plumbob run dpo policy.model=")
    first = json.loads(path.read_text().splitlines()[0])
    assert (first["chosen"], first["rejected"], first["margin"]) == (HOSTILE, "The Tarnis runs on diesel.", 2.0)
    assert LONG_WORD not in path.read_text()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--margin", "2.5"], "of 8 prompts from step 1 on none has two responses that end, say something and are 2.5"),
        (["--from-step", "31"], "of 0 prompts from step 31 on none has two"),
        (["--part", "length"], "the reward has no part 'length'; its parts: raw"),
        (["--margin", "nan"], "--margin=nan: expected a number that is at least 0"),
        (["--output", "nowhere/pairs.jsonl"], "nowhere/pairs.jsonl: the pairs cannot be written"),
    ],
)
def test_what_gives_no_pairs_is_refused(
    folder: Path, asked: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pairs", str(folder), *asked]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "pairs.jsonl").exists()


def test_its_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pairs", "--help"])
    assert "example: plumbob pairs runs/rloo --margin 0.5" in " ".join(capsys.readouterr().out.split())
