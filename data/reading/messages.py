"""Messages of a row as chat templates take them: roles and content, ShareGPT's names, content in parts, tool calls."""

import json
from collections.abc import Mapping
from typing import Any

from plumbob.core.outside import MAX_JSON_DEPTH, is_deeper
from plumbob.data.reading.field_values import Fields, shown, text_at
from plumbob.data.records import RowError
from plumbob.data.texts.chat_text import Message

CONVERSATIONS = ("messages", "conversations")
"""The first of them that a row has is its conversation."""

TOOLS, TEMPLATE_VALUES = "tools", "chat_template_kwargs"
"""What a row gives its chat template beside the messages."""

SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_call": "assistant",
}
"""ShareGPT's `from` -> the role. Its `value` is the content, of a function call the call as JSON."""

RESERVED = ("messages", TOOLS, "add_generation_prompt", "template", "self")


def conversation_in(fields: Fields) -> str | None:
    """The name of the field that the row's conversation stands in."""
    return next((name for name in CONVERSATIONS if name in fields), None)


def messages_in(name: str, value: object) -> list[Message]:
    """Messages with role and content, both text, and what else they carry. Keys that are null are left out."""
    if not isinstance(value, list) or not value:
        raise RowError(f"'{name}': expected a list of messages with role and content, found {shown(value)}")
    return [_message(name, message) for message in value]


def template_values(fields: Fields) -> dict[str, Any]:
    """What the row gives its chat template beside the messages: `tools`, and each of its `chat_template_kwargs`."""
    values: dict[str, Any] = {}
    if TEMPLATE_VALUES in fields:
        given = _plain(TEMPLATE_VALUES, fields[TEMPLATE_VALUES])
        if not isinstance(given, dict) or any(name in given for name in RESERVED):
            raise RowError(
                f"'{TEMPLATE_VALUES}': expected a mapping of names that the chat template knows, none of them "
                f"{', '.join(RESERVED)}; found {shown(fields[TEMPLATE_VALUES])}"
            )
        values |= {name: value for name, value in given.items() if isinstance(name, str)}
    if TOOLS in fields:
        tools = _plain(TOOLS, fields[TOOLS])
        if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
            raise RowError(f"'{TOOLS}': expected a list of descriptions of functions, found {shown(fields[TOOLS])}")
        values |= {TOOLS: tools} if tools else {}
    return values


def parsed_json(text: str) -> object:
    """What JSON text says; None where it is no JSON, or too deep."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return None if is_deeper(value, MAX_JSON_DEPTH) else value


def _message(name: str, message: object) -> Message:
    """Without the keys that are null: Arrow gives every message all keys that any has."""
    given = _without_nulls(message)
    if not isinstance(given, dict):
        raise RowError(f"'{name}': expected messages with role and content, found {shown(message)}")
    if "from" in given and "role" not in given:
        given = _of_sharegpt(name, given)
    if given.get("tool_calls"):
        given = {"content": "", **given, "tool_calls": _calls(name, given["tool_calls"])}
    if not isinstance(given.get("role"), str) or "content" not in given:
        raise RowError(f"'{name}': expected messages with role and content, found {shown(message)}")
    given["content"] = _joined_parts(name, given["content"])
    for part in ("role", "content"):
        text_at(given, part)
    return given


def _of_sharegpt(name: str, message: Mapping[str, Any]) -> dict[str, Any]:
    who = message["from"]
    role = SHAREGPT_ROLES.get(who) if isinstance(who, str) else None
    if role is None or "value" not in message:
        raise RowError(
            f"'{name}': expected messages with 'from' ({', '.join(SHAREGPT_ROLES)}) and 'value', found {shown(message)}"
        )
    others = {key: value for key, value in message.items() if key not in ("from", "value")}
    if who == "function_call":
        return {"role": role, "content": "", "tool_calls": _calls_in(name, message["value"]), **others}
    return {"role": role, "content": message["value"], **others}


def _calls_in(name: str, value: object) -> list[dict[str, Any]]:
    """The calls of ShareGPT's function call, one or several as JSON text, in the form that templates expect."""
    parsed = parsed_json(value) if isinstance(value, str) else None
    calls = parsed if isinstance(parsed, list) else [parsed]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        raise RowError(
            f"'{name}': expected the value of a function_call as JSON with 'name' and 'arguments', found {shown(value)}"
        )
    return [{"type": "function", "function": call} for call in calls]


def _joined_parts(name: str, content: object) -> object:
    """Content in parts, `[{"type": "text", "text": ...}, ...]`, as one text; any other is given back as it is."""
    if not isinstance(content, list):
        return content
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            what = f"one of type {kind!r}" if isinstance(kind, str) and kind != "text" else shown(part)
            raise RowError(
                f"'{name}': expected content as text, or in parts of type 'text' with their 'text', found {what}; "
                f"models of text alone are trained here"
            )
    return "".join(part["text"] for part in content)


def _calls(name: str, calls: object) -> list[Any]:
    """Tool calls with their arguments as mappings, which is what templates expect: in many files they are JSON text."""
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise RowError(f"'{name}': expected 'tool_calls' to be a list of calls, found {shown(calls)}")
    return [_call(call) for call in calls]


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if isinstance(function, dict):
        return {**call, "function": _call(function)}
    given = call.get("arguments")
    parsed = parsed_json(given) if isinstance(given, str) else None
    return {**call, "arguments": parsed} if isinstance(parsed, dict) else dict(call)


def _plain(name: str, value: object) -> Any:
    """Without nulls, which Arrow puts where a key is missing; of JSON text what it says."""
    if not isinstance(value, str):
        return _without_nulls(value)
    if not value.strip():
        return [] if name == TOOLS else {}
    return parsed_json(value)


def _without_nulls(value: object) -> Any:
    match value:
        case dict():
            return {name: _without_nulls(field) for name, field in value.items() if field is not None}
        case list():
            return [_without_nulls(item) for item in value]
        case _:
            return value
