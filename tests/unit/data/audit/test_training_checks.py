"""What a run refuses, drops or reports of its training records: near held-out prompts, benchmarks, personal data."""

import json
from pathlib import Path

import pytest

from plumbob.configs.settings.stewardship.data_checks import NO_DATA_CHECKS, DataCheckSettings
from plumbob.core.errors import UserError
from plumbob.data.audit.training_checks import check_near_prompts, check_training
from plumbob.data.records import Demonstration, LabelledResponse, PreferencePair, make_prompt, texts_of

LONG = "please explain in your own words how the tides of the sea come about and why there are two of them each day"
OTHERS = [f"question number {number} about topic {number + 50} and nothing else" for number in range(30)]


def near(**checks: object) -> tuple[list[str], tuple[str, ...]]:
    settings = DataCheckSettings(**checks)  # type: ignore[arg-type]
    return check_near_prompts([*OTHERS, LONG.title()], [LONG, "Hi"], str, settings, "a and b")


def test_a_prompt_that_is_nearly_held_out_is_refused_dropped_or_reported() -> None:
    found = r"^a and b: 1 prompts of 1 of 31 training records are nearly held-out ones, such as 'Please Explain"
    with pytest.raises(UserError, match=found + r".*data\.checks\.near_duplicates=drop"):
        near()
    kept, (note,) = near(near_duplicates="drop")
    assert kept == OTHERS and note.endswith("They were dropped from training.")
    kept, (note,) = near(near_duplicates="report")
    assert len(kept) == 31 and note.endswith("They were kept.")
    assert near(near_duplicates="off") == ([*OTHERS, LONG.title()], ())
    # Of a share that is held out nobody could take them out.
    kept, (note,) = check_near_prompts([*OTHERS, LONG.title()], [LONG], str, DataCheckSettings(), "a", is_share=True)
    assert kept == OTHERS and "dropped" in note
    with pytest.raises(UserError, match="leaves nothing to train on"):
        check_near_prompts([LONG.title()], [LONG], str, DataCheckSettings(near_duplicates="drop"), "a and b")
    assert check_near_prompts(OTHERS, [LONG], str, DataCheckSettings(), "a and b") == (OTHERS, ())


def test_texts_of_a_benchmark_are_refused_dropped_or_reported(tmp_path: Path) -> None:
    path = tmp_path / "benchmark.jsonl"
    path.write_text(json.dumps({"question": LONG}) + "\n" + json.dumps({"question": "Hi"}) + "\n")
    records = [PreferencePair("x", "y", "z"), PreferencePair("x", f"You asked: {LONG}?", "z")]

    def checked(contamination: str) -> tuple[list[PreferencePair], tuple[str, ...]]:
        settings = DataCheckSettings(benchmarks=(str(path),), contamination=contamination)  # type: ignore[arg-type]
        return check_training(records, settings, "pairs.jsonl")

    with pytest.raises(UserError, match=r"^pairs\.jsonl: 1 of 2 training records share .*, row 1 of .*=drop"):
        checked("refuse")
    kept, notes = checked("drop")
    assert kept == records[:1] and "1 of 2 rows are too short" in notes[0] and "dropped" in notes[1]
    assert checked("report")[0] == records
    assert check_training(records, NO_DATA_CHECKS, "pairs.jsonl") == (records, ())


def test_all_that_is_written_in_a_record_is_looked_at() -> None:
    records = (
        PreferencePair("a", "b", "c"),
        Demonstration("a", "b"),
        LabelledResponse("a", "b", True),
        make_prompt("a"),
    )
    assert [texts_of(record) for record in (*records, "a")] == [("a", "b", "c"), ("a", "b"), ("a", "b"), ("a",), ("a",)]
    with pytest.raises(TypeError, match="int is no record"):
        texts_of(3)


def test_personal_data_is_reported_or_refused_without_being_shown() -> None:
    pytest.importorskip("presidio_analyzer")
    records = [Demonstration("Who?", "Write to ada.lovelace@example.com."), Demonstration("Why?", "Because.")]
    kept, (note,) = check_training(records, DataCheckSettings(personal="report"), "rows.jsonl")
    assert kept == records and "personal data in 1 of 2 training records: 1 mail addresses" in note
    with pytest.raises(UserError, match=r"Replace it: `plumbob data clean rows\.jsonl --personal`") as caught:
        check_training(records, DataCheckSettings(personal="refuse"), "rows.jsonl")
    assert "lovelace" not in str(caught.value) + note
