"""Files of data that are hostile or damaged: a message and never the end of the process; a bad row is one bad row."""

import gzip
import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plumbob.configs.settings.data import ReadingSettings
from plumbob.core.errors import UserError
from plumbob.data.reading.file_formats import bounded_files
from plumbob.data.reading.readers import (
    read_annotated_pairs,
    read_demonstrations,
    read_labelled,
    read_prompts,
    read_scored_responses,
)
from plumbob.data.row_digest import digest_of_rows
from plumbob.data.texts.chat_text import chat_renderer, plain_dialogue
from tests.support.control_tokenizers import byte_tokenizer

RULES, SKIP = ReadingSettings(), ReadingSettings(bad_rows="skip")
GOOD = {"prompt": "q", "completion": "a"}


def write_lines(path: Path, *rows: object) -> str:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return str(path)


def write_stream(path: Path, table: pa.Table, is_file: bool = False) -> Path:
    opened = pa.ipc.new_file if is_file else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as sink, opened(sink, table.schema) as out:
        out.write_table(table)
    return path


# -------------------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("is_file", [True, False])
@pytest.mark.parametrize("offset", [2**30, -1, 2**31 - 1])
def test_offsets_that_lead_out_of_an_arrow_file(tmp_path: Path, is_file: bool, offset: int) -> None:
    """Reading a text by the second of these offsets would end the process with SIGSEGV."""
    table = pa.table({"prompt": ["first", "second"], "completion": ["a", "b"]})
    path = write_stream(tmp_path / "rows.arrow", table, is_file)
    offsets = np.array([0, 5, 11], np.int32).tobytes()
    spoilt = path.read_bytes().replace(offsets, np.array([0, offset, 11], np.int32).tobytes())
    path.write_bytes(spoilt)
    with pytest.raises(UserError, match=r"rows\.arrow: cannot be read as \.arrow: In column 0.*; the file is damaged"):
        read_demonstrations(str(path), RULES, plain_dialogue)


def test_a_date_past_the_year_9999_in_a_column_that_nobody_reads(tmp_path: Path) -> None:
    days = [0, 2**31 - 1]
    made = {"prompt": ["q", "r"], "completion": ["a", "b"], "made": pa.array(days, pa.int32()).cast(pa.date32())}
    pq.write_table(pa.table(made), tmp_path / "a.parquet")
    read = read_demonstrations(str(tmp_path / "a.parquet"), RULES, plain_dialogue)
    assert [record.prompt for record in read.records] == ["q", "r"]
    digests = [digest_of_rows(str(tmp_path / "a.parquet"))]
    for other in ([0, 2**31 - 2], [0, 1]):
        made["made"] = pa.array(other, pa.int32()).cast(pa.date32())
        pq.write_table(pa.table(made), tmp_path / "a.parquet")
        digests.append(digest_of_rows(str(tmp_path / "a.parquet")))
    assert len(set(digests)) == 3


def test_digests_of_tables_with_ordinary_dates_are_what_runs_have_kept(tmp_path: Path) -> None:
    """As of rows read with pyarrow alone."""
    pq.write_table(pa.table({"prompt": ["q"], "made": [date(2026, 1, 2)], "none": [None]}), tmp_path / "a.parquet")
    write_lines(tmp_path / "a.jsonl", {"made": "date datetime.date(2026, 1, 2)", "prompt": "q"})
    assert digest_of_rows(str(tmp_path / "a.parquet")) == digest_of_rows(str(tmp_path / "a.jsonl"))


def test_an_unreadable_value_where_a_text_is_expected_is_a_bad_row(tmp_path: Path) -> None:
    made = pa.table({"prompt": pa.array([2**31 - 1], pa.int32()).cast(pa.date32()), "completion": ["a"]})
    pq.write_table(made, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"row 1: 'prompt': expected text, found UnreadableValue\(type='date32"):
        read_demonstrations(str(tmp_path / "a.parquet"), RULES, plain_dialogue)


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
def test_rows_that_take_no_room_in_the_file(tmp_path: Path, suffix: str) -> None:
    table = pa.table({"prompt": pa.nulls(3_000_000)})
    path = tmp_path / f"a.{suffix}"
    pq.write_table(table, path) if suffix == "parquet" else write_stream(path, table)
    assert path.stat().st_size < 20_000
    with pytest.raises(UserError, match="rows, which so small a file cannot hold"):
        read_prompts(str(path), RULES, plain_dialogue)


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
def test_one_long_text_in_every_row(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_files, "FREE_BYTES", 2**20)
    texts = pa.array(["x" * 10_000]).dictionary_encode().take(pa.array([0] * 100_000))
    path = tmp_path / f"a.{suffix}"
    table = pa.table({"prompt": texts})
    pq.write_table(table, path) if suffix == "parquet" else write_stream(path, table)
    with pytest.raises(UserError, match=r"it becomes more than .* MiB, 100 times its size"):
        read_prompts(str(path), RULES, plain_dialogue)


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
def test_keys_that_a_message_lacks_are_not_null_in_it(tmp_path: Path, suffix: str) -> None:
    """Arrow gives every message all keys that any has; templates ask whether a message has a key."""
    call = pa.struct([("name", pa.string()), ("unit", pa.string())])
    message = pa.struct([("role", pa.string()), ("content", pa.string()), ("tool_calls", pa.list_(call))])
    rows = [
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        [{"role": "user", "content": "r", "tool_calls": [{"name": "f"}]}, {"role": "assistant", "content": "b"}],
    ]
    table = pa.table({"messages": pa.array(rows, pa.list_(message))})
    path = tmp_path / f"a.{suffix}"
    pq.write_table(table, path) if suffix == "parquet" else write_stream(path, table)
    seen: list[Any] = []

    def render(messages: list[Any], **_: Any) -> str:
        seen.extend(messages)
        return str(messages)

    read_demonstrations(str(path), RULES, render)
    assert seen[:2] == [rows[0][0], rows[1][0]]


# ---------------------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    "row",
    [
        '{"prompt": ' + "[" * 2000 + "]" * 2000 + ', "completion": "a"}',
        '{"prompt": "q", "completion": "a", "other": ' + "[" * 70 + "]" * 70 + "}",
        "[" * 200_000,
        '{"prompt": "q", "completion": 1' + "0" * 5000 + "}",
        '{"prompt": "q", "completion": "\\ud83d"}',
        '{"messages": [{"role": "\\ud83d", "content": "x"}, {"role": "user", "content": "q"},'
        ' {"role": "assistant", "content": "y"}]}',
        '{"messages": [{"role": "user", "content": null}, {"role": "assistant", "content": "y"}]}',
        '{"messages": [null]}',
        '{"messages": {"role": "user"}}',
        '{"\\ud83d": 1}',
        "{" + ",".join(f'"{"k" * 400}{i}": 1' for i in range(100)) + "}",
        "3",
        '"text"',
        "NaN",
    ],
)
def test_a_bad_row_is_refused_by_its_number_or_skipped(tmp_path: Path, row: str) -> None:
    path = write_lines(tmp_path / "rows.jsonl", GOOD, row)
    with pytest.raises(UserError, match=r"1 of 2 rows is malformed\. row 2: ") as refused:
        read_demonstrations(path, RULES, plain_dialogue)
    assert len(str(refused.value)) < 6_000
    str(refused.value).encode()
    read = read_demonstrations(path, SKIP, plain_dialogue)
    assert (len(read.records), read.num_skipped_malformed) == (1, 1)
    digest_of_rows(path)


@pytest.mark.parametrize("digits", [310, 4000])
def test_numbers_of_many_digits(tmp_path: Path, digits: int) -> None:
    number = "1" + "0" * digits
    path = write_lines(tmp_path / "a.jsonl", '{"prompt": "q", "answer": "a", "score": ' + number + "}")
    with pytest.raises(UserError, match=r"'score': expected a finite number, found 1000"):
        read_scored_responses(path, RULES, plain_dialogue)
    path = write_lines(
        tmp_path / "b.jsonl", '{"prompt": "q", "chosen": "a", "rejected": "b", "margin": ' + number + "}"
    )
    with pytest.raises(UserError, match=r"'margin': expected a finite number, found 1000"):
        read_annotated_pairs(path, RULES, plain_dialogue, use_margin=True)
    path = write_lines(tmp_path / "c.jsonl", '{"prompt": "q", "completion": "a", "label": ' + number + "}")
    with pytest.raises(UserError, match=r"'label': expected true or false, found 1000"):
        read_labelled(path, RULES, plain_dialogue)


def test_a_template_that_writes_half_a_pair(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"prompt": [{"role": "user", "content": "q"}]})
    with pytest.raises(UserError, match="half a surrogate pair"):
        read_prompts(path, RULES, lambda messages: "\ud83d")


def test_a_whole_json_file_that_is_nested_too_deeply(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"a\.json: cannot be read as \.json: it is nested too deeply"):
        read_prompts(str(tmp_path / "a.json"), RULES, plain_dialogue)


# ------------------------------------------------------------------------------------------------------------ archives


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.txt.gz"])
def test_a_small_archive_of_much_is_not_expanded(tmp_path: Path, name: str) -> None:
    line = json.dumps(GOOD | {"other": "x" * 2**20}).encode() + b"\n"
    (tmp_path / name).write_bytes(gzip.compress(line * 64))
    with pytest.raises(UserError, match=r"it becomes more than .* MiB, 100 times its size"):
        read_demonstrations(str(tmp_path / name), RULES, plain_dialogue)


def test_a_line_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_files, "MAX_LINE_BYTES", 1000)
    path = write_lines(tmp_path / "a.jsonl", GOOD, GOOD | {"completion": "x" * 2000})
    with pytest.raises(UserError, match="a line has more than"):
        read_demonstrations(path, RULES, plain_dialogue)


# --------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("path", ["x" * 300, "~nosuchuser/a.jsonl", "a\0b.jsonl", "/" + "x" * 5000, "", "**/" * 300])
def test_names_that_no_file_can_have(path: str) -> None:
    with pytest.raises(UserError, match=r": (cannot be looked for|does not exist|matches no file|holds|the folder)"):
        read_demonstrations(path, RULES, plain_dialogue)


def test_a_template_with_an_error_of_its_own_refuses_the_rows(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", {"prompt": [{"role": "user", "content": "q"}]})
    with pytest.raises(UserError, match=r"row 1: the tokenizer's chat template cannot write .*ZeroDivisionError"):
        read_prompts(path, RULES, chat_renderer(byte_tokenizer("{{ 1 / 0 }}")))
