"""What a row carries besides prompt and response is used, or named as left out."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plumbob.configs.settings.data import ReadingSettings
from plumbob.core.errors import UserError
from plumbob.data.reading.readers import (
    read_demonstrations,
    read_labelled,
    read_pairs,
    read_prompts,
    read_rankings,
    read_texts,
)
from plumbob.data.texts.chat_text import Message

RULES = ReadingSettings()
USER = {"role": "user", "content": "Hi"}
GOOD = {"role": "assistant", "content": "Hello!"}
BAD = {"role": "assistant", "content": "Go away."}
PIRATE = {"role": "system", "content": "Be a pirate."}
ASKED_PIRATE = "[system:Be a pirate.][user:Hi]"


def render(messages: list[Message], **_: Any) -> str:
    return "".join(f"[{message['role']}:{message['content']}]" for message in messages)


def save(folder: Path, *rows: Any, name: str = "rows.jsonl") -> str:
    (folder / name).write_text("\n".join(map(json.dumps, rows)))
    return str(folder / name)


def test_columns_that_no_reader_uses_are_named_and_counted(tmp_path: Path) -> None:
    row = {"prompt": "p", "completion": "c", "id": 7, "label": True}
    path = save(tmp_path, row, row | {"source": "web", "id": None})
    assert read_demonstrations(path, RULES, render).notes == (
        f"{path}: 3 of 5 columns are not used: id, label, source.",
    )
    assert read_labelled(save(tmp_path, row), RULES, render).notes == (f"{path}: 1 of 4 columns is not used: id.",)
    assert read_prompts(path, RULES, render).notes[-1] == f"{path}: 2 of 4 columns are not used: id, label."
    mapped = ReadingSettings(columns={"prompt": "id"})
    text = save(tmp_path, row | {"id": "seven"})
    assert read_demonstrations(text, mapped, render).notes == (f"{path}: 2 of 4 columns are not used: label, prompt.",)


def test_a_file_that_is_used_whole_has_no_note(tmp_path: Path) -> None:
    assert read_pairs(save(tmp_path, {"prompt": "p", "chosen": "c", "rejected": "r"}), RULES, render).notes == ()
    assert read_texts(save(tmp_path, {"text": "t"}), RULES).notes == ()


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Hi", "chosen": "Hello!", "rejected": "Go away."},
        {"prompt": [USER], "chosen": "Hello!", "rejected": "Go away."},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": "Hi", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": "Hi", "chosen": [PIRATE, USER, GOOD], "rejected": [PIRATE, USER, BAD]},
    ],
)
def test_a_system_column_becomes_the_system_message(tmp_path: Path, row: dict[str, Any]) -> None:
    path = save(tmp_path, {"system": "Be a pirate."} | row)
    read = read_pairs(path, RULES, render)
    assert [(pair.prompt, pair.chosen) for pair in read.records] == [(ASKED_PIRATE, "Hello!")] and read.notes == ()
    assert [prompt.text for prompt in read_prompts(path, RULES, render).records] == [ASKED_PIRATE]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "completion": "Hello!"},
        {"prompt": [USER], "completion": [GOOD]},
        {"messages": [USER, GOOD]},
        {"messages": [PIRATE, USER, GOOD]},
        {"instruction": "Hi", "output": "Hello!"},
    ],
)
def test_demonstrations_keep_their_system_message(tmp_path: Path, row: dict[str, Any]) -> None:
    path = save(tmp_path, row | {"system": "Be a pirate."})
    (demonstration,) = read_demonstrations(path, RULES, render).records
    assert (demonstration.prompt, demonstration.response) == (ASKED_PIRATE, "Hello!")
    assert [prompt.text for prompt in read_prompts(path, RULES, render).records] == [ASKED_PIRATE]


def test_rankings_keep_their_system_message(tmp_path: Path) -> None:
    path = save(tmp_path, {"system": "Be a pirate.", "prompt": "Hi", "answers": ["a", "b"]})
    assert [ranking.prompt for ranking in read_rankings(path, RULES, render).records] == [ASKED_PIRATE]


def test_rows_whose_system_message_is_null_have_the_same_form(tmp_path: Path) -> None:
    columns = {"system": ["Be a pirate.", None, ""], "prompt": ["Hi"] * 3, "completion": ["a", "b", "c"]}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    read = read_demonstrations(str(tmp_path / "rows.parquet"), RULES, render)
    assert [record.prompt for record in read.records] == [ASKED_PIRATE, "[user:Hi]", "[user:Hi]"]


def test_two_different_system_messages_are_refused(tmp_path: Path) -> None:
    row = {"system": "Be brief.", "messages": [PIRATE, USER, GOOD]}
    with pytest.raises(UserError, match=r"row 1: expected one system message, found .* beside"):
        read_demonstrations(save(tmp_path, row), RULES, render)


@pytest.mark.parametrize("columns", [{}, {"prompt": "instruction", "answer": "output"}])
def test_alpaca_rows_are_written_in_their_published_form(tmp_path: Path, columns: dict[str, str]) -> None:
    rows = [{"instruction": "Add.", "input": f"{n} + 1", "output": f"{n + 1}"} for n in range(24)]
    path, rules = (
        save(tmp_path, *rows, {"instruction": "Sing.", "input": "", "output": "La"}),
        ReadingSettings(columns=columns),
    )
    read = read_demonstrations(path, rules, render)
    assert (read.records[3].prompt, read.records[3].response) == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n3 + 1\n\n### Response:",
        "4",
    )
    assert read.records[24].prompt == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nSing.\n\n### Response:"
    )
    assert len(read_prompts(path, rules, render).records) == 25 and read.notes == ()


def test_rows_without_a_key_that_others_of_their_file_have_are_written_in_the_same_form(tmp_path: Path) -> None:
    """In JSONL a key may be missing where Parquet has a null."""
    alpaca = [{"instruction": "Add.", "input": "1", "output": "1"}, {"instruction": "Say", "output": "2"}]
    read = read_demonstrations(save(tmp_path, *alpaca), RULES, render)
    assert read.records[1].prompt.endswith("### Instruction:\nSay\n\n### Response:") and read.notes == ()
    chats = [{"prompt": "Hi", "system": "Be brief."}, {"prompt": "Ho"}]
    read_chats = read_prompts(save(tmp_path, *chats), RULES, render)
    assert [one.text for one in read_chats.records] == ["[system:Be brief.][user:Hi]", "[user:Ho]"]
    # Those that were read before it was known are counted.
    read = read_demonstrations(save(tmp_path, alpaca[1], alpaca[1], *alpaca), RULES, render)
    assert [record.prompt == "Say" for record in read.records] == [True, True, False, False]
    assert "rows are written in two forms: 2 before row 3 have no 'input', which it has" in read.notes[-1]
    # Of a file that has none at all nothing is said, nor of a column that is another field.
    assert read_demonstrations(save(tmp_path, alpaca[1]), RULES, render).notes == ()
    rules = ReadingSettings(columns={"prompt": "input"}, bad_rows="skip")
    assert read_prompts(save(tmp_path, {"input": "Hi"}, {"x": "Ho"}), rules, render).num_skipped_malformed == 1


def test_braces_in_a_row_are_text(tmp_path: Path) -> None:
    row = {"instruction": "{input} {0}", "input": "{instruction}", "output": "a"}
    (record,) = read_demonstrations(save(tmp_path, row), RULES, render).records
    assert "### Instruction:\n{input} {0}\n\n### Input:\n{instruction}\n\n" in record.prompt


def test_messages_that_differ_in_what_the_template_does_not_write_are_one_prompt(tmp_path: Path) -> None:
    row = {"chosen": [USER | {"weight": 1}, GOOD], "rejected": [USER | {"weight": 0}, BAD]}
    assert [pair.prompt for pair in read_pairs(save(tmp_path, row), RULES, render).records] == ["[user:Hi]"]

    def with_weight(messages: list[Message], **_: Any) -> str:
        return render(messages) + str(messages[-1].get("weight"))

    with pytest.raises(UserError, match="found two prompts"):
        read_pairs(save(tmp_path, row), RULES, with_weight)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"completion": "c"}, "'prompt' is missing or null: expected prompt . completion"),
        ({"prompt": "p"}, "'completion' is missing or null: expected prompt . completion"),
        ({"id": 3}, "'prompt' is missing or null"),
        ({"prompt": "p", "chosen": "c"}, "'rejected' is missing or null"),
    ],
)
def test_a_demonstration_is_told_what_it_lacks(tmp_path: Path, row: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=f"row 1: {why}"):
        read_demonstrations(save(tmp_path, row), RULES, render)


def test_a_conversation_beside_a_text_has_one_prompt_for_every_stage(tmp_path: Path) -> None:
    path = save(tmp_path, {"prompt": "Hi there", "messages": [USER, GOOD]})
    (record,) = read_demonstrations(path, RULES, render).records
    (prompt,) = read_prompts(path, RULES, render).records
    assert record.prompt == prompt.text == "[user:Hi]"


@pytest.mark.parametrize("name", ["rows.JSONL", "rows.Ndjson"])
def test_a_kind_of_file_is_known_in_capitals_too(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, {"prompt": "p", "completion": "c"}, name=name)
    assert len(read_demonstrations(path, RULES, render).records) == 1


def test_with_an_environment_prompts_are_told_apart_by_their_rows(tmp_path: Path) -> None:
    """Games that begin alike and are others; a row that stands twice is one."""
    games = [{"prompt": "Guess.", "car": car} for car in ("Tarnis", "Quillan", "Tarnis")]
    path = save(tmp_path, *games)
    played = read_prompts(path, RULES, render, keeps_rows=True, opening=lambda row: None)
    assert [prompt.row["car"] for prompt in played.records] == ["Tarnis", "Quillan"] and played.num_duplicate == 1
    assert {prompt.text for prompt in played.records} == {"Guess."}
    opened = read_prompts(path, RULES, render, keeps_rows=True, opening=lambda row: [USER])
    assert [prompt.text for prompt in opened.records] == ["[user:Hi]"] * 2
    assert len({prompt.prompt_id for prompt in (*played.records, *opened.records)}) == 4


def test_one_prompt_with_two_answers_is_asked_for_each(tmp_path: Path) -> None:
    """Where rows go along; else a prompt is its text."""
    asked = [{"prompt": "Name a car.", "answer": answer} for answer in ("Tarnis", "Quillan", "Tarnis")]
    path = save(tmp_path, *asked)
    kept = read_prompts(path, RULES, render, keeps_rows=True)
    assert [prompt.row["answer"] for prompt in kept.records] == ["Tarnis", "Quillan"] and kept.num_duplicate == 1
    assert len({prompt.prompt_id for prompt in kept.records}) == 2
    (note,) = [note for note in kept.notes if "other columns" in note]
    assert note.startswith(f"{path}: 1 of 3 rows have the prompt of an earlier row and differ from it")
    (alone,) = read_prompts(path, RULES, render).records
    assert alone.row == {}
