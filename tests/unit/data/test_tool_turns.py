"""Of turns that call a tool: the token that the template ends them with is learnt, and the sampler stops at it."""

from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig

from plumbob.configs.settings.data import ReadingSettings
from plumbob.core.errors import UserError
from plumbob.data.reading.readers import read_demonstrations
from plumbob.data.texts.chat_text import chat_renderer
from plumbob.data.texts.turns import ResponseEnds
from plumbob.trainers.learner.learner_parts import with_all_ends
from tests.support.chat_rows import chat, encoded, learnt, saved
from tests.support.control_tokenizers import CHATML, CONTROL, LLAMA_3_TOOLS, byte_tokenizer

TOOL_CONTROL = (*CONTROL, "<|eom_id|>", "<|python_tag|>")


def calling(name: str, **others: Any) -> dict[str, Any]:
    row = chat("Hi", "") | others
    row["messages"][-1]["tool_calls"] = [{"type": "function", "function": {"name": name, "arguments": {"q": 1}}}]
    return row


def test_a_turn_that_calls_a_tool_ends_as_the_template_ends_it_and_the_sampler_stops_there(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(LLAMA_3_TOOLS, TOOL_CONTROL)
    built_in = {"chat_template_kwargs": {"builtin_tools": ["search"]}}
    for row, text in (
        (calling("search", **built_in), "<|python_tag|>search.call()<|eom_id|>"),
        (calling("look", **built_in), '{"name": "look", "parameters": {"q": 1}}<|eot_id|>'),
        (calling("look"), '{"name": "look", "parameters": {"q": 1}}<|eot_id|>'),
        (chat("Hi", "Lima"), "Lima<|eot_id|>"),
    ):
        found = encoded(tmp_path, tokenizer, row)
        assert learnt(tokenizer, found) == text
        assert int(found.ids[-1]) in ResponseEnds(tokenizer).stop_ids
    ends = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|eot_id|>", "<|eom_id|>"])
    assert ResponseEnds(tokenizer).stop_ids == set(ends)
    assert with_all_ends(GenerationConfig(eos_token_id=ends[0]), tokenizer).eos_token_id == ends
    # Letters that spell an end are none.
    found = encoded(tmp_path, tokenizer, chat("Hi", "Lima<|eom_id|>"))
    assert learnt(tokenizer, found) == "Lima<|eot_id|>"


def test_a_turn_that_ends_with_what_no_sampler_stops_at_is_refused(tmp_path: Path) -> None:
    # Only a call of this one tool ends so, which nothing can know before.
    template = LLAMA_3_TOOLS.replace("in (builtin_tools or [])", "== 'search'")
    tokenizer = byte_tokenizer(template, TOOL_CONTROL)
    path = saved(tmp_path, calling("search"))
    with pytest.raises(UserError, match=r"row 1: .* ends the response's turn with <\|eom_id\|>, .* with <\|eot_id\|>:"):
        read_demonstrations(path, ReadingSettings(), chat_renderer(tokenizer))
    assert learnt(tokenizer, encoded(tmp_path, tokenizer, calling("look"))).endswith("}}<|eot_id|>")


def test_a_tag_that_closes_a_call_ends_no_turn(tmp_path: Path) -> None:
    control = (*CONTROL, "</call>")
    calls = "{% for c in message.tool_calls or [] %}{{ c.function.name }}</call>{% else %}"
    template = CHATML.replace(
        "{{ message['content'] }}<|im_end|>\n", calls + "{{ message['content'] }}<|im_end|>{% endfor %}"
    )
    tokenizer = byte_tokenizer(template, control)
    assert learnt(tokenizer, encoded(tmp_path, tokenizer, calling("look"))) == "look</call><|im_end|>"
    assert tokenizer.convert_tokens_to_ids("</call>") not in ResponseEnds(tokenizer).stop_ids
