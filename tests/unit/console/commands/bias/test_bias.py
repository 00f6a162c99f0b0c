"""`plumbob bias`: a table, an exit status past a bound, and messages about what was given."""

import json
from pathlib import Path

import pytest

from plumbob.console.cli import main
from plumbob.data.bias.term_pairs import TERM_PAIRS, term_pairs_csv
from tests.support.tiny_scorer import write_scorer


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """A tiny model of letters, in the folder of a run, and texts and terms that are letters."""
    write_scorer(tmp_path / "run" / "reward" / "reward_model", seed=3)
    rows = [{"prompt": f"{letter} {letter} x", "chosen": f"a {letter}", "rejected": "y"} for letter in "bcdefghi"]
    (tmp_path / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "terms.csv").write_text("dimension,first_group,second_group,first,second\nletter,\x1b[31mA,Z,a,z\n")
    run, texts, terms = (str(tmp_path / name) for name in ("run", "pairs.jsonl", "terms.csv"))
    return [run, "--texts", texts, "--terms", terms, "--raw", "--max-tokens", "32"]


def test_a_table_and_a_bound(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bias", "reward", *files]) == 0
    table = capsys.readouterr().out
    assert "\x1b" not in table and "letter: \ufffd[31mA - Z" in table
    assert main(["bias", "reward", *files, "--json", "--max-difference", "0"]) == 1
    found = json.loads(capsys.readouterr().out)
    (one,) = found["differences"]
    assert one["num_texts"] == 8 and one["is_real"] and one["ci95"][0] <= one["mean"] <= one["ci95"][1]
    assert f"{one['mean']:+.3f}" in table
    assert main(["bias", "reward", *files, "--max-difference", "100"]) == 0
    assert "nothing is above 100" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-difference", "-1"], "--max-difference=-1: expected a number from 0 to a million"),
        (["--max-texts", "0"], "--max-texts=0: expected a whole number from 1"),
        (["--texts", "/gone.jsonl"], "/gone.jsonl: does not exist"),
        (["--max-tokens", "33"], "takes at most 32 tokens"),
    ],
)
def test_what_cannot_be_is_named(
    files: list[str], options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bias", "reward", *files, *options]) == 2
    assert message in capsys.readouterr().err


def test_the_terms_are_printed_to_be_edited(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bias", "terms"]) == 0
    assert capsys.readouterr().out == term_pairs_csv(TERM_PAIRS)
