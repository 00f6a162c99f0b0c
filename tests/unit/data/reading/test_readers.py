import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plumbob.configs.settings.data import ReadingSettings
from plumbob.core.errors import UserError
from plumbob.data.reading.readers import (
    ReadRecords,
    read_demonstrations,
    read_labelled,
    read_pairs,
    read_prompts,
    read_texts,
)
from plumbob.data.records import Demonstration, LabelledResponse, PreferencePair, prompt_id_of
from plumbob.data.texts.chat_text import Message

REFUSE = ReadingSettings()
SKIP = ReadingSettings(bad_rows="skip")

USER = {"role": "user", "content": "Hi"}
GOOD = {"role": "assistant", "content": "Hello!"}
BAD = {"role": "assistant", "content": "Go away."}
PAIR = PreferencePair("[user:Hi]", "Hello!", "Go away.")


def render(messages: list[Message], **_: Any) -> str:
    return "".join(f"[{message['role']}:{message['content']}]" for message in messages)


def save(folder: Path, *rows: Any) -> str:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(path)


def counts(read: ReadRecords[Any]) -> tuple[int, int, int, int, int]:
    return len(read.records), read.num_rows, read.num_skipped_malformed, read.num_empty, read.num_duplicate


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": [USER], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": "Hi", "chosen": [USER, GOOD], "rejected": [USER, BAD], "messages": [USER, GOOD]},
        {"prompt": [USER], "chosen": "Hello!", "rejected": "Go away."},
    ],
)
def test_conversational_pairs_of_every_form_are_the_same_pair(tmp_path: Path, row: dict[str, Any]) -> None:
    path = save(tmp_path, row)
    assert read_pairs(path, REFUSE, render).records == (PAIR,)
    assert [prompt.text for prompt in read_prompts(path, REFUSE, render).records] == [PAIR.prompt]


def test_plain_pairs_are_taken_as_written(tmp_path: Path) -> None:
    path = save(tmp_path, {"prompt": "Q: why?\nA:", "chosen": " Because.\n", "rejected": " No."})
    assert read_pairs(path, REFUSE, render).records == (PreferencePair("Q: why?\nA:", " Because.\n", " No."),)


def test_whole_dialogues_are_cut_behind_the_last_assistant_turn(tmp_path: Path) -> None:
    shared = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    row = {"chosen": shared + " yes\n\nreally", "rejected": shared + " no"}
    path = save(tmp_path, row)
    (pair,) = read_pairs(path, REFUSE, render).records
    assert pair == PreferencePair(shared, " yes\n\nreally", " no")
    assert pair.prompt + pair.chosen == row["chosen"]
    assert read_texts(path, REFUSE).records == (row["chosen"],)
    assert read_demonstrations(path, REFUSE, render).records == (Demonstration(shared, " yes\n\nreally"),)
    assert [prompt.text for prompt in read_prompts(path, REFUSE, render).records] == [shared]


@pytest.mark.parametrize(
    ("chosen", "rejected", "why"),
    [
        # Chosen continues for one more turn than rejected, and the other way round: a response must not hold a turn.
        ("\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", "\n\nHuman: a\n\nAssistant: e", "two prompts"),
        ("\n\nHuman: a\n\nAssistant: e", "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", "two prompts"),
        ("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: z\n\nAssistant: b", "two prompts"),
        ("\n\nHuman: a\n\nAssistant: b\n\nHuman: c", "\n\nHuman: a\n\nAssistant: d", "the human's last"),
        ("just an answer", "another", "stands without a prompt: expected a whole dialogue"),
    ],
)
def test_dialogues_that_are_no_pair_are_malformed(tmp_path: Path, chosen: str, rejected: str, why: str) -> None:
    with pytest.raises(UserError, match=f"row 1: .*{why}"):
        read_pairs(save(tmp_path, {"chosen": chosen, "rejected": rejected}), REFUSE, render)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "p", "completion": "c"}, Demonstration("p", "c")),
        ({"question": "q?", "answer": "a"}, Demonstration("q?", "a")),
        ({"prompt": [USER], "completion": [GOOD]}, Demonstration("[user:Hi]", "Hello!")),
        ({"messages": [USER, GOOD]}, Demonstration("[user:Hi]", "Hello!")),
        ({"messages": [USER, GOOD, USER, BAD]}, Demonstration("[user:Hi][assistant:Hello!][user:Hi]", "Go away.")),
        ({"prompt": "Hi", "messages": [USER, GOOD]}, Demonstration("[user:Hi]", "Hello!")),
    ],
)
def test_demonstrations_of_every_form(tmp_path: Path, row: dict[str, Any], expected: Demonstration) -> None:
    assert read_demonstrations(save(tmp_path, row), REFUSE, render).records == (expected,)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "p", "completion": "c", "label": True}, LabelledResponse("p", "c", True)),
        ({"question": "q?", "answer": "a", "label": False}, LabelledResponse("q?", "a", False)),
        ({"prompt": [USER], "completion": [BAD], "label": False}, LabelledResponse("[user:Hi]", "Go away.", False)),
        ({"messages": [USER, GOOD], "label": True}, LabelledResponse("[user:Hi]", "Hello!", True)),
    ],
)
def test_labelled_responses_of_every_form(tmp_path: Path, row: dict[str, Any], expected: LabelledResponse) -> None:
    path = save(tmp_path, row)
    assert read_labelled(path, REFUSE, render).records == (expected,)
    assert [prompt.text for prompt in read_prompts(path, REFUSE, render).records] == [expected.prompt]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "p", "completion": "c"}, r"'label' is missing or null: expected prompt \+ completion \+ label"),
        ({"prompt": "p", "completion": "c", "label": 1}, "'label': expected true or false, found 1"),
        ({"prompt": "p", "completion": "c", "label": "good"}, "'label': expected true or false, found 'good'"),
        ({"prompt": "p", "label": True}, "expected prompt"),
    ],
)
def test_responses_without_a_label_are_malformed(tmp_path: Path, row: dict[str, Any], why: str) -> None:
    path = save(
        tmp_path,
        {"prompt": "p", "completion": "c", "label": True},
        row,
        {"prompt": "", "completion": "c", "label": False},
    )
    with pytest.raises(UserError, match=rf"1 of 3 rows is malformed. row 2: .*{why}"):
        read_labelled(path, REFUSE, render)
    assert counts(read_labelled(path, SKIP, render)) == (1, 3, 1, 1, 0)


def test_a_label_of_another_name_is_mapped(tmp_path: Path) -> None:
    rules = ReadingSettings(columns={"label": "thumbs_up"})
    path = save(tmp_path, {"prompt": "p", "completion": "c", "thumbs_up": False})
    assert read_labelled(path, rules, render).records == (LabelledResponse("p", "c", False),)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"prompt": "p"}, "p"),
        ({"prompt": "p", "answer": "a"}, "p"),
        ({"prompt": [USER]}, "[user:Hi]"),
        ({"messages": [USER]}, "[user:Hi]"),
        ({"messages": [USER, GOOD]}, "[user:Hi]"),
        ({"text": "t"}, "t"),
    ],
)
def test_prompts_of_every_form(tmp_path: Path, row: dict[str, Any], text: str) -> None:
    (prompt,) = read_prompts(save(tmp_path, row), REFUSE, render).records
    assert (prompt.text, prompt.prompt_id) == (text, prompt_id_of(text))


def test_the_prompt_id_is_the_beginning_of_the_sha256_of_the_text() -> None:
    assert prompt_id_of("abc") == "ba7816bf8f01cfea"  # FIPS 180-2, appendix B.1


def test_a_column_mapping_renames_and_hides_the_old_name(tmp_path: Path) -> None:
    path = save(tmp_path, {"instruction": "p", "chosen": "worse", "rejected": "better"})
    rules = ReadingSettings(columns={"prompt": "instruction", "chosen": "rejected", "rejected": "chosen"})
    assert read_pairs(path, rules, render).records == (PreferencePair("p", "better", "worse"),)
    # `prompt` is mapped away to `text`, so the row no longer counts as a prompt with a response.
    assert read_texts(save(tmp_path, {"prompt": "p"}), ReadingSettings(columns={"text": "prompt"})).records == ("p",)


def test_a_wrong_column_mapping_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, {"instruction": "p", "completion": "c"})
    with pytest.raises(UserError, match=r"data\.columns: 'promt' is not a field name.*Did you mean 'prompt'"):
        read_demonstrations(path, ReadingSettings(columns={"promt": "instruction"}), render)
    with pytest.raises(UserError, match=r"row 1: expected the column 'inst' \(data.columns.prompt\), found the fields"):
        read_demonstrations(path, ReadingSettings(columns={"prompt": "inst"}), render)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "p", "chosen": "c"}, r"'rejected' is missing or null.*found the fields chosen, prompt"),
        ({"prompt": "p", "chosen": "c", "rejected": None}, "'rejected' is missing or null"),
        ({"prompt": "p", "chosen": "c", "rejected": 3}, "'rejected': expected text, found 3"),
        ({"prompt": "p", "chosen": "c", "rejected": "\ud800"}, "half a surrogate pair"),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": "no"}, "'rejected': expected a list of messages"),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": []}, "'rejected': expected a list of messages"),
        (
            {"prompt": [USER], "chosen": [USER], "rejected": [BAD]},
            "'chosen': expected the last message to be the assis",
        ),
        ({"prompt": [USER, GOOD], "chosen": [GOOD], "rejected": [BAD]}, "ends with a message of the user's"),
        (
            {"prompt": "other", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
            "'chosen': expected the response's mess",
        ),
        ({"chosen": [USER, GOOD], "rejected": [GOOD, BAD]}, "two prompts"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "ends with a message of the user's"),
        ({"prompt": [{"role": "user"}], "chosen": "a", "rejected": "b"}, "messages with role and content"),
        ("{not json", "expected one JSON object a line"),
        ("[1]", "expected an object of fields, found list"),
    ],
)
def test_malformed_pairs_say_row_field_and_what_was_found(tmp_path: Path, row: Any, why: str) -> None:
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    path = save(tmp_path, good, row, good)
    with pytest.raises(UserError, match=rf"rows\.jsonl: 1 of 3 rows is malformed. row 2: .*{why}.*data.bad_rows=skip"):
        read_pairs(path, REFUSE, render)
    read = read_pairs(path, SKIP, render)
    assert counts(read) == (2, 3, 1, 0, 0)
    assert "1 of 3 rows skipped, because they are malformed: row 2: " in read.notes[0]


def test_empty_and_equal_rows_are_counted_and_dropped_whatever_the_rule(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": " \n", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "", "rejected": "b"},
        {"prompt": "p", "chosen": "same", "rejected": "same"},
        {"prompt": [{"role": "user", "content": " "}], "chosen": [GOOD], "rejected": [BAD]},
    )
    read = read_pairs(path, REFUSE, render)
    assert counts(read) == (1, 5, 0, 3, 1)
    assert [note.split("rows ")[1] for note in read.notes] == [
        "dropped, because a prompt, a response or a text in them is blank: row 2; row 3; row 5.",
        "dropped, because chosen and rejected are the same response: row 4.",
    ]


def test_a_prompt_is_read_once(tmp_path: Path) -> None:
    read = read_prompts(save(tmp_path, {"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}, {"prompt": ""}), SKIP, render)
    assert [prompt.text for prompt in read.records] == ["a", "b"]
    assert counts(read) == (2, 4, 0, 1, 1)


def test_a_note_shows_three_rows_and_counts_the_rest(tmp_path: Path) -> None:
    read = read_texts(save(tmp_path, {"text": "a"}, *[{"text": ""}] * 5), REFUSE)
    assert read.notes[0].endswith("blank: row 2; row 3; row 4; and 2 more.")


def test_nothing_left_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no row can be used.*2 of 2 rows skipped"):
        read_texts(save(tmp_path, {"x": 1}, {"x": 2}), SKIP)


def test_messages_as_pretraining_text_are_refused_even_when_bad_rows_are_skipped(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rows\.jsonl: row 1: chat messages are not plain text"):
        read_texts(save(tmp_path, {"messages": [USER, GOOD]}), SKIP)


def test_rows_of_a_folder_are_named_with_their_file(tmp_path: Path) -> None:
    save(tmp_path, {"text": "a"})
    (tmp_path / "second.jsonl").write_text('{"text": "b"}\n{"text": 5}')
    with pytest.raises(
        UserError, match=r"1 of 3 rows is malformed. second\.jsonl row 2: 'text': expected text, found 5"
    ):
        read_texts(str(tmp_path), REFUSE)


def test_messages_come_out_of_parquet_as_they_do_out_of_jsonl(tmp_path: Path) -> None:
    row = {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "pairs.parquet")
    assert read_pairs(str(tmp_path / "pairs.parquet"), REFUSE, render).records == (PAIR,)


def test_a_prompt_keeps_its_row_where_a_reward_reads_it(tmp_path: Path) -> None:
    rows = ({"prompt": "2 + 2?", "solution": 4, "tags": ["sum"]}, {"prompt": "Who?", "solution": None, "tags": []})
    path = save(tmp_path, *rows)
    kept = read_prompts(path, REFUSE, render, keeps_rows=True)
    # A null counts as missing, and what is handed on is used.
    assert [prompt.row for prompt in kept.records] == [rows[0], {"prompt": "Who?", "tags": []}]
    assert not any("not used" in note for note in kept.notes)
    without = read_prompts(path, REFUSE, render)
    assert [prompt.row for prompt in without.records] == [{}, {}]
    assert any("2 of 3 columns are not used: solution, tags" in note for note in without.notes)


@pytest.mark.parametrize("answer", [4, ["4", "four"], 4.0, True, {"value": 4}])
def test_what_stands_beside_a_question_need_be_no_text_to_ask_it(tmp_path: Path, answer: Any) -> None:
    path = save(tmp_path, {"question": "2 + 2?", "answer": answer})
    (prompt,) = read_prompts(path, REFUSE, render, keeps_rows=True).records
    assert (prompt.text, prompt.row["answer"]) == ("2 + 2?", answer)
