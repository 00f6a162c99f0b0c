"""`plumbob bias policy` on tiny models: two side by side, an encoder, a reward that is a rule, and refusals."""

import json
from pathlib import Path

import pytest
from transformers import BertForMaskedLM

from plumbob.console.cli import main
from tests.support.tiny_policy import write_policy
from tests.support.tiny_scorer import bert_config, bert_tokenizer
from tests.unit.data.bias.test_bbq import AGE, changed, write

CROWS = "sent_more,sent_less,stereo_antistereo,bias_type\n" + "".join(
    f"a {word} cat,a {word} dog,stereo,kind\n" for word in "bcdefgh"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "crows.csv").write_text(CROWS)
    write(tmp_path / "bbq.jsonl", *[AGE] * 3, *[changed(context_condition="disambig", label=0)] * 3)
    write_policy(tmp_path / "one")
    write_policy(tmp_path / "other", num_heads=2)
    return tmp_path


def measured(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, dict[str, object]]:
    assert main(["bias", "policy", *options, "--json"]) == 0
    return {one["name"]: one for one in json.loads(capsys.readouterr().out)["measures"]}


def test_two_policies_side_by_side(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--crows-pairs", str(folder / "crows.csv"), "--bbq", str(folder / "bbq.jsonl")]
    both = [str(folder / "one"), "--against", str(folder / "other"), *files]
    found, other = measured(capsys, *both), measured(capsys, str(folder / "other"), *files)
    assert list(found)[:2] == ["CrowS-Pairs", "CrowS-Pairs, kind"]
    assert {"BBQ: accuracy, ambiguous", "BBQ Age: accuracy, disambiguated"} <= set(found)
    for name, one in found.items():
        if name in other:
            assert one["change"]["before"] == other[name]["value"]  # type: ignore[index]
    assert found["CrowS-Pairs"]["num_cases"] == 7
    assert main(["bias", "policy", *both]) == 0
    assert "* larger than the noise, over all measures together" in capsys.readouterr().out


def test_responses_to_prompts_with_either_groups_terms(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [str(folder / "one"), "--num-prompts", "30", "--max-tokens", "4"]
    found = measured(capsys, *options, "--reward", "{kind: length, unit: characters, min: 2}")
    assert sum(int(one["num_cases"]) for one in found.values()) == 30  # type: ignore[call-overload]
    assert "responses, gender: men - women" in found
    # The same policy against itself draws the same answers.
    again = [*options, "--against", str(folder / "one"), "--reward", "{kind: length, unit: characters, min: 2}"]
    assert all(one["change"]["difference"] == 0 for one in measured(capsys, *again).values())  # type: ignore[index]


def test_an_encoder_by_its_pseudo_log_likelihoods(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    BertForMaskedLM(bert_config(initializer_range=0.4)).save_pretrained(folder / "bert")
    bert_tokenizer().save_pretrained(folder / "bert")
    crows = ["--crows-pairs", str(folder / "crows.csv")]
    assert measured(capsys, str(folder / "bert"), *crows)["CrowS-Pairs"]["num_cases"] == 7
    assert main(["bias", "policy", str(folder / "bert"), *crows, "--bbq", str(folder / "bbq.jsonl")]) == 2
    assert "is an encoder, which writes no text: it is measured by --crows-pairs alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to measure: give --crows-pairs=FILE, --bbq=FILE or --reward=MODEL"),
        (["--judge", "m"], "--judge=m: is called --reward: give --reward=m"),
        (["--terms", "t.csv"], "--terms is for --reward"),
        (["--reward", "{kind: numeric}"], "numeric compares with the column 'answer'"),
        (["--reward", "{kind: lenght}"], "lenght"),
        (["--reward", "/gone"], "/gone"),
        (["--bbq", "/gone.jsonl"], "/gone.jsonl: does not exist"),
        (["--batch-size", "0"], "--batch-size=0: expected a whole number from 1"),
    ],
)
def test_what_cannot_be_is_named(
    folder: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bias", "policy", str(folder / "one"), *options]) == 2
    assert message in capsys.readouterr().err
