"""Calls of tools in a policy's text: by the conventions of public templates, and what is not quite a call."""

import json
import time
from typing import Any

import pytest
from trl.chat_template_utils import qwen3_template

from plumbob.data.texts.turns import assistant_turn, write, written_end
from plumbob.rollout.tool_calls.response_template import TimedTemplate
from plumbob.rollout.tool_calls.tool_call_parser import ToolCallParser
from tests.support.control_tokenizers import CHATML, byte_tokenizer
from tests.support.public_templates import public_names, public_tokenizer

QWEN = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": [2, null]}}\n</tool_call>'
GLM = (
    "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_key>b</arg_key>\n<arg_value>two, "
    "three</arg_value>\n</tool_call>"
)
QWEN_3_5 = (
    "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\ntwo, three\n</parameter>\n"
    "</function>\n</tool_call>"
)
DEEPSEEK = (
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{"a": 1}\n```<｜tool▁call▁end｜>'
    "<｜tool▁calls▁end｜>"
)
GPT_OSS = ' to=functions.add<|channel|>commentary json<|message|>{"a": 1}'
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}[INST] {{ message.content }}[/INST]"
    "{% elif message.tool_calls %}[TOOL_CALLS] [{% for call in message.tool_calls %}"
    "{% if call.id | length != 9 %}{{ raise_exception('ids have nine letters') }}{% endif %}"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}, "id": "{{ call.id }}"}'
    "{% if not loop.last %}, {% endif %}{% endfor %}]{{ eos_token }}"
    "{% else %} {{ message.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
TOKENS = ("<|endoftext|>", "<|pad|>", "<s>", "[TOOL_CALLS]")


def parser(name: str) -> ToolCallParser:
    return ToolCallParser(public_tokenizer(name))


def called(found: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(call["function"]["name"], call["function"]["arguments"]) for call in found["tool_calls"]]


def test_a_call_has_the_form_of_openais() -> None:
    assert parser("qwen3").turn_of(f"<think>\nsum\n</think>\n\nI add.\n{QWEN}") == {
        "role": "assistant",
        "content": "<think>\nsum\n</think>\n\nI add.",
        "tool_calls": [
            {"id": "call00000", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [2, None]}}}
        ],
    }


@pytest.mark.parametrize(
    ("name", "text", "calls"),
    [
        ("qwen2_5", QWEN, [("add", {"a": 1, "b": [2, None]})]),
        ("qwen2_5", f"{QWEN}\n{QWEN}", [("add", {"a": 1, "b": [2, None]})] * 2),
        ("qwen3", QWEN.replace("\n", "  \n "), [("add", {"a": 1, "b": [2, None]})]),
        ("qwen3_instruct_2507", QWEN, [("add", {"a": 1, "b": [2, None]})]),
        ("llama3_1", '{"name": "add", "parameters": {"a": 1}}', [("add", {"a": 1})]),
        ("llama3_2", ' {"name": "add", "parameters": {}}\n', [("add", {})]),
        ("glm4moe", GLM, [("add", {"a": 1, "b": "two, three"})]),
        ("glm4moe", "<tool_call>now\n</tool_call>", [("now", {})]),
        ("qwen3_5_think", QWEN_3_5, [("add", {"a": 1, "b": "two, three"})]),
        ("qwen3_5_think", "<tool_call>\n<function=now>\n</function>\n</tool_call>", [("now", {})]),
        ("qwen3_5_think", f"{QWEN_3_5}\n{QWEN_3_5}", [("add", {"a": 1, "b": "two, three"})] * 2),
        ("deepseekv3", DEEPSEEK, [("add", {"a": 1})]),
        ("gptoss", GPT_OSS, [("add", {"a": 1})]),
        ("gptoss", f"<|channel|>analysis<|message|>Sum.<|end|><|start|>assistant{GPT_OSS}", [("add", {"a": 1})]),
    ],
)
def test_what_public_templates_write(name: str, text: str, calls: list[tuple[str, Any]]) -> None:
    assert called(parser(name).turn_of(text)) == calls


def test_mistrals_list_of_calls() -> None:
    tokenizer = byte_tokenizer(MISTRAL, TOKENS)
    tokenizer.bos_token = "<s>"
    calls = [{"name": name, "arguments": {"a": 1}, "id": "x"} for name in ("add", "sub")]
    found = ToolCallParser(tokenizer).turn_of(f"[TOOL_CALLS] {json.dumps(calls)}")
    assert called(found) == [("add", {"a": 1}), ("sub", {"a": 1})] and found["content"] == ""
    assert [call["id"] for call in found["tool_calls"]] == ["call00000", "call00001"]


MALFORMED = {
    "qwen3": [
        "I add.",
        QWEN.removesuffix("\n</tool_call>"),
        QWEN.replace("}}", "}"),
        f"{QWEN} And then?",
        f"{QWEN}\n{QWEN.replace('name', 'nmae')}",
        QWEN.replace('"add"', '""'),
        QWEN.replace('"add"', "5"),
        QWEN.replace('"add"', '"add up"'),
        QWEN.replace('{"a": 1, "b": [2, null]}', "[1]"),
        QWEN.replace("null", "NaN"),
        QWEN.replace("null", "9" * 5000),
        QWEN.replace("null", "[" * 70 + "]" * 70),
        QWEN.replace("null", "[" * 100_000),
        "<tool_call>\n[]\n</tool_call>",
        "<tool_call></tool_call>",
        "<tool_call>" * 10_000,
    ],
    "llama3_1": [
        'I call {"name": "add", "parameters": {}}',
        '{"name": "add", "parameters": {}} now',
        '{"name": "add", "parameters": {}}{"name": "add", "parameters": {}}',
        '{"name": "add", "arguments": {}}',
        '{"name": "add"}',
        "{}",
        "",
    ],
    "glm4moe": [
        GLM.removesuffix("</tool_call>"),
        GLM.replace("<arg_key>b", "<arg_key>a"),
        GLM.replace("</arg_key>\n<arg_value>two", "two"),
        "<tool_call>\n</tool_call>",
    ],
    "deepseekv3": [DEEPSEEK.replace("```json", ""), DEEPSEEK.replace('{"a": 1}', "a"), DEEPSEEK.replace("add", "")],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in MALFORMED.items() for text in texts])
def test_what_is_malformed_stays_text(name: str, text: str) -> None:
    assert parser(name).turn_of(text) == {"role": "assistant", "content": text}


def test_a_call_that_is_tried_out_in_thoughts_is_none() -> None:
    found = parser("qwen3").turn_of(f"<think>\n{QWEN} or so\n</think>\n{QWEN}")
    assert called(found) == [("add", {"a": 1, "b": [2, None]})] and found["content"].endswith("</think>")


@pytest.mark.parametrize("name", public_names())
def test_what_a_template_writes_of_a_call_is_read_again(name: str) -> None:
    """Of every public template that writes calls in a form that is known; the others are listed below."""
    tokenizer = public_tokenizer(name)
    found = ToolCallParser(tokenizer)
    if not found.knows_calls:
        assert name in UNKNOWN
        return
    assert name not in UNKNOWN
    arguments = {"city": "Oslo, Norway", "days": 3}
    for as_text in (False, True):
        given = {"name": "weather", "arguments": json.dumps(arguments) if as_text else arguments}
        call = {"id": "abcdefghi", "type": "function", "function": given}
        dialogue = [{"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
        try:
            opened = write(tokenizer, dialogue[:1])
            written = write(tokenizer, dialogue, add_generation_prompt=False)
        except Exception:
            continue
        turn = assistant_turn(tokenizer)
        assert turn is not None
        text = written.rpartition("Rain?")[2].partition(turn.opening)[2]
        end = written_end(tokenizer, text)
        assert opened and called(found.turn_of(text.rpartition(end)[0] if end else text)) == [("weather", arguments)]
        return
    pytest.fail("the template refuses a call")


UNKNOWN = {
    *("cohere", "cohere2", "deepseek_r1_distill", "gemma", "gemma3", "idefics3", "llama3", "llava_next", "phi3"),
    *("lfm2", "phi3_5", "qwen2_5_vl", "smolvlm"),
    *("diffusion_gemma", "gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4", "gemma4_v5"),
    *("lfm2_2_5", "lfm2_2_5_v2", "lfm2_2_5_vl", "lfm2_v2", "muse_glimmer"),
}
"""Templates that write no calls, or as a program would (LFM 2), or in marks of their own (Gemma 4, Muse Glimmer)."""


def test_a_tokenizer_without_calls() -> None:
    for template in (CHATML, None):
        found = ToolCallParser(byte_tokenizer(template))
        assert not found.knows_calls and found.turn_of(QWEN) == {"role": "assistant", "content": QWEN}


def test_a_tokenizers_own_way_comes_first() -> None:
    """transformers' `response_template`, here Qwen 3's as TRL has it, on a template that writes no calls."""
    tokenizer = byte_tokenizer(CHATML)
    tokenizer.response_template = qwen3_template
    found = ToolCallParser(tokenizer)
    prompt = "<|im_start|>user\nAdd.<|im_end|>\n<|im_start|>assistant\n"
    assert found.knows_calls
    turn = found.turn_of(f"I add.\n{QWEN}", prompt)
    assert called(turn) == [("add", {"a": 1, "b": [2, None]})] and turn["content"].strip() == "I add."
    for text in ("I add.", QWEN.replace("}}", "}"), QWEN.replace('"add"', "5"), QWEN.replace("arguments", "args")):
        assert found.turn_of(text, prompt) == {"role": "assistant", "content": text}


CALLS = {"open": "<call>", "close": "</call>", "repeats": True}
FOR_EVER = "(a|aa)+b"
"""Where no `b` follows many of `a`, each way to divide these is tried."""


@pytest.mark.parametrize(
    "changes",
    [
        {"open_pattern": FOR_EVER},
        {"close_pattern": FOR_EVER},
        {"content": "xml-inline", "content_args": {"tag_pattern": rf"(?P<key>{FOR_EVER})(?P<value>.*)"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_pattern_that_takes_for_ever_leaves_a_text(changes: dict[str, Any]) -> None:
    tokenizer = byte_tokenizer(CHATML)
    left_out = {name.removesuffix("_pattern") for name in changes}
    calls = {name: value for name, value in CALLS.items() if name not in left_out}
    fields = {"content": {}, "tool_calls": {**calls, **changes}}
    tokenizer.response_template = {"version": 1, "start_anchor": "<|im_start|>assistant\n", "fields": fields}
    found = ToolCallParser(tokenizer)
    assert found.knows_calls
    text, began = f"<call>{'a' * 60}-b</call>", time.process_time()
    with pytest.raises(TimeoutError):
        TimedTemplate(tokenizer.response_template).message(text, "<|im_start|>assistant\n")
    assert found.turn_of(text, "<|im_start|>assistant\n") == {"role": "assistant", "content": text}
    assert time.process_time() - began < 10


def test_a_response_template_that_is_none_knows_no_calls() -> None:
    tokenizer = byte_tokenizer(CHATML)
    tokenizer.response_template = {"fields": {}}
    assert not ToolCallParser(tokenizer).knows_calls
