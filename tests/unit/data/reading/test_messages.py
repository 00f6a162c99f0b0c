"""Messages in the forms of other projects, and what a row gives its chat template beside them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerFast

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
from plumbob.data.records import Demonstration
from plumbob.data.texts.chat_text import Render, chat_renderer, plain_dialogue

RULES = ReadingSettings()
USER = {"role": "user", "content": "Capital?"}
GOOD = {"role": "assistant", "content": "Ostvik."}
BAD = {"role": "assistant", "content": "Limara."}
PARAMETERS = {"type": "object", "properties": {"country": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": "capital_of", "parameters": PARAMETERS}}]
WRITTEN_TOOLS = (
    '[{"type": "function", "function": {"name": "capital_of", "parameters": '
    '{"type": "object", "properties": {"country": {"type": "string"}}}}}]'
)
CALL = {"type": "function", "function": {"name": "capital_of", "arguments": {"country": "Norland"}}}
TEMPLATE = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}"
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}"
    "{% for call in message.get('tool_calls') or [] %}"
    "<call>{{ call['function']['name'] }}{{ call['function']['arguments'] | tojson }}</call>{% endfor %}</turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% if is_brief %}(briefly) {% endif %}{% endif %}"
)


@pytest.fixture
def render(tokenizer: PreTrainedTokenizerFast) -> Render:
    chat = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, chat_template=TEMPLATE)
    return chat_renderer(chat)


def save(folder: Path, *rows: Any) -> str:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder / "rows.jsonl")


# ------------------------------------------------------------------------------------------------------ other forms


def test_a_function_call_of_sharegpt_is_a_tool_call(tmp_path: Path, render: Render) -> None:
    call = json.dumps({"name": "capital", "arguments": {"of": "Peru"}})
    talk = [
        {"from": "human", "value": "Capital?"},
        {"from": "function_call", "value": call},
        {"from": "observation", "value": "Lima"},
        {"from": "gpt", "value": "It is Lima."},
    ]
    as_messages = [
        {"role": "user", "content": "Capital?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": "capital", "arguments": {"of": "Peru"}}}],
        },
        {"role": "tool", "content": "Lima"},
        {"role": "assistant", "content": "It is Lima."},
    ]
    found, wanted = (
        read_demonstrations(save(tmp_path, row), RULES, render).records
        for row in ({"conversations": talk}, {"messages": as_messages})
    )
    assert found == wanted
    with pytest.raises(UserError, match=r"expected the value of a function_call as JSON with 'name' and 'arguments', "):
        talk[1]["value"] = "capital of Peru"
        read_demonstrations(save(tmp_path, {"conversations": talk}), RULES, render)


def test_sharegpt_conversations_are_messages(tmp_path: Path) -> None:
    names = [("system", "Be brief."), ("human", "Hi"), ("gpt", "Hello!"), ("human", "Who?"), ("gpt", "Me.")]
    path = save(tmp_path, {"conversations": [{"from": who, "value": text} for who, text in names]})
    read = read_demonstrations(path, RULES, plain_dialogue)
    prompt = "\n\nSystem: Be brief.\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Who?\n\nAssistant:"
    assert read.records == (Demonstration(prompt, " Me."),)
    assert [prompt.text for prompt in read_prompts(path, RULES, plain_dialogue).records] == [prompt]
    mapped = ReadingSettings(columns={"conversations": "talk"})
    path = save(tmp_path, {"talk": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}], "label": True})
    assert read_labelled(path, mapped, plain_dialogue).records[0].response == " Yes"


@pytest.mark.parametrize(
    "message", [{"from": "bot", "value": "x"}, {"from": "human"}, {"from": ["human"], "value": ""}]
)
def test_another_speaker_is_refused(tmp_path: Path, message: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"'conversations': expected messages with 'from' \(human, .* and 'value'"):
        read_demonstrations(save(tmp_path, {"conversations": [message]}), RULES, plain_dialogue)


def test_content_in_parts_of_text_is_one_text(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": "!"}]
    row = {"messages": [USER | {"content": [{"type": "text", "text": "Hi"}]}, GOOD | {"content": parts}]}
    (record,) = read_demonstrations(save(tmp_path, row), RULES, plain_dialogue).records
    assert record == Demonstration("\n\nHuman: Hi\n\nAssistant:", " Hello!")


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ({"type": "image_url", "image_url": {"url": "x"}}, "one of type 'image_url'"),
        ({"type": "text"}, "{'type': 'text'}"),
        ("Hi", "'Hi'"),
    ],
)
def test_parts_that_are_no_text_are_refused_by_name(tmp_path: Path, part: Any, named: str) -> None:
    row = {"messages": [USER | {"content": [part]}, GOOD]}
    with pytest.raises(UserError, match=f"'messages': expected content as text, or in parts .* found {named}"):
        read_demonstrations(save(tmp_path, row), RULES, plain_dialogue)


# ------------------------------------------------------------------------------------------------------------- tools


@pytest.mark.parametrize("form", [TOOLS, json.dumps(TOOLS)])
def test_tools_of_a_row_are_given_to_the_template(tmp_path: Path, render: Render, form: Any) -> None:
    asked = f"<tools>{WRITTEN_TOOLS}</tools><user>Capital?</turn>\n<assistant>"
    row = {"messages": [USER, GOOD], "tools": form}
    read = read_demonstrations(save(tmp_path, row, row | {"tools": []}), RULES, render)
    without = "<user>Capital?</turn>\n<assistant>"
    assert read.records == (Demonstration(asked, "Ostvik."), Demonstration(without, "Ostvik.")) and read.notes == ()
    # Two rows that differ in their tools alone are two prompts.
    assert [one.text for one in read_prompts(str(tmp_path / "rows.jsonl"), RULES, render).records] == [asked, without]
    pair = save(tmp_path, {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD], "tools": form})
    assert [one.prompt for one in read_pairs(pair, RULES, render).records] == [asked]
    ranking = save(tmp_path, {"prompt": [USER], "answers": ["a", "b"], "tools": form})
    assert [one.prompt for one in read_rankings(ranking, RULES, render).records] == [asked]


@pytest.mark.parametrize("given", [{"content": ""}, {"content": None}, {}])
@pytest.mark.parametrize("arguments", [{"country": "Norland"}, '{"country": "Norland"}'])
def test_calls_in_a_prompt_are_written_by_the_template(
    tmp_path: Path, render: Render, given: dict[str, Any], arguments: Any
) -> None:
    call = {"type": "function", "function": {"name": "capital_of", "arguments": arguments}}
    calling = {"role": "assistant", "tool_calls": [call]} | given
    found = {"role": "tool", "content": "Ostvik"}
    read = read_demonstrations(save(tmp_path, {"messages": [USER, calling, found, GOOD]}), RULES, render)
    called = '<assistant><call>capital_of{"country": "Norland"}</call></turn>\n<tool>Ostvik</turn>\n<assistant>'
    assert read.records == (Demonstration(f"<user>Capital?</turn>\n{called}", "Ostvik."),)


def test_a_response_that_calls_a_tool_is_learnt_whole(tmp_path: Path, render: Render) -> None:
    calling = {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]}
    read = read_demonstrations(save(tmp_path, {"messages": [USER, calling]}), RULES, render)
    learnt = 'Let me look.<call>capital_of{"country": "Norland"}</call>'  # Without the turn's end, which EOS is.
    assert read.records == (Demonstration("<user>Capital?</turn>\n<assistant>", learnt),) and read.notes == ()
    pair = save(tmp_path, {"chosen": [USER, calling], "rejected": [USER, calling | {"tool_calls": None}]})
    (record,) = read_pairs(pair, RULES, render).records
    assert (record.chosen, record.rejected) == (learnt, "Let me look.")


def test_calls_that_are_not_written_are_not_half_learnt(tmp_path: Path) -> None:
    path = save(tmp_path, {"messages": [USER, {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]}]})
    with pytest.raises(UserError, match=r"row 1: 'messages': the response has tool_calls, which the chat template"):
        read_demonstrations(path, RULES, plain_dialogue)


def test_what_a_template_does_not_write_is_named_with_its_rows(tmp_path: Path, render: Render) -> None:
    row = {"messages": [USER | {"weight": 1}, GOOD], "tools": TOOLS}
    path = save(tmp_path, row, row | {"tools": None}, {"messages": [USER, GOOD]})
    assert read_demonstrations(path, RULES, plain_dialogue).notes == (
        f"{path}: the chat template writes the same text without tools (1 row), weight of messages (2 rows): left out.",
    )
    assert read_demonstrations(path, RULES, render).notes == (
        f"{path}: the chat template writes the same text without weight of messages (2 rows): left out.",
    )
    path = save(tmp_path, {"prompt": "p", "completion": "c", "tools": TOOLS})
    assert read_demonstrations(path, RULES, render).notes == (f"{path}: 1 of 3 columns is not used: tools.",)
    path = save(tmp_path, {"prompt": "p", "answers": ["a", "b"], "tools": TOOLS})
    assert read_rankings(path, RULES, render).notes == (f"{path}: 1 of 3 columns is not used: tools.",)


def test_values_for_the_template_are_given_to_it(tmp_path: Path, render: Render) -> None:
    row = {"messages": [USER, GOOD], "chat_template_kwargs": {"is_brief": True, "mood": "good"}}
    path = save(tmp_path, row)
    read = read_demonstrations(path, RULES, render)
    assert [record.prompt for record in read.records] == ["<user>Capital?</turn>\n<assistant>(briefly) "]
    note = "the chat template writes the same text without chat_template_kwargs.mood (1 row): left out."
    assert read.notes == (f"{path}: {note}",)
    with pytest.raises(UserError, match=r"'chat_template_kwargs': expected a mapping .* none of them messages"):
        read_demonstrations(save(tmp_path, row | {"chat_template_kwargs": {"messages": []}}), RULES, render)
    with pytest.raises(UserError, match="'tools': expected a list of descriptions of functions, found 'hammer'"):
        read_demonstrations(save(tmp_path, row | {"tools": "hammer"}), RULES, render)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_nulls_that_arrow_puts_into_tools_are_not_written(tmp_path: Path, render: Render, suffix: str) -> None:
    other = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "zone": "UTC"}}}
    rows = [{"messages": [USER, GOOD], "tools": tools} for tools in (TOOLS, [other], None)]
    table, path = pa.Table.from_pylist(rows), tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    first, _, last = read_demonstrations(str(path), RULES, render).records
    assert first.prompt == f"<tools>{WRITTEN_TOOLS}</tools><user>Capital?</turn>\n<assistant>"
    assert last.prompt == "<user>Capital?</turn>\n<assistant>"


# ----------------------------------------------------------------------------------------------------- several turns


def test_the_assistant_turns_that_are_learnt_are_counted(tmp_path: Path) -> None:
    rows = [{"messages": [USER, GOOD] * turns} for turns in (1, 3, 3)]
    path = save(tmp_path, *rows, {"prompt": "p", "completion": "c"})
    note = (
        f"{path}: 3 of 7 assistant turns are learnt: of each conversation the last, to which those before it are the "
        f"prompt."
    )
    assert read_demonstrations(path, RULES, plain_dialogue).notes[-1] == note
    # All of a text is learnt, and nothing of a prompt.
    assert not any("are learnt" in note for note in read_prompts(path, RULES, plain_dialogue).notes)
    assert not any("are learnt" in note for note in read_texts(path, RULES, plain_dialogue).notes)
