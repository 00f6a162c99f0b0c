"""Which fields of a row are the prompt and the responses, for the names that TRL, hh-rlhf and others use.

Texts are taken exactly as written, so that prompt + response is the text of the file: nothing is stripped or put
between. Only chat messages go through a template, which the caller gives as `render`.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from plumbob.core.errors import UserError
from plumbob.data.chat import ASSISTANT_TURN, HUMAN_TURN, Message, Render
from plumbob.data.records import Demonstration, LabelledResponse, PreferencePair, RowError

Fields = Mapping[str, Any]

NUM_LISTED = 40
"""Names that a message lists at most."""

NAMES = ("prompt", "question", "chosen", "rejected", "completion", "answer", "label", "messages", "text")
FEEDBACK_NAMES = ("answers", "ranks", "scores", "score", "margin", "annotator")
PAIR_FORMS = "prompt + chosen + rejected, or chosen + rejected as whole dialogues"
DEMONSTRATION_FORMS = "prompt + completion, question + answer, messages, or a preference pair"
LABELLED_FORMS = "prompt + completion + label, or messages + label"
PROMPT_FORMS = "prompt, question, messages, chosen + rejected as whole dialogues, or text"
TEXT_FORMS = "text, or a prompt with its answer"


def check_columns(columns: Mapping[str, str]) -> None:
    """Refuse a column mapping to a name that no reader knows."""
    known = NAMES + FEEDBACK_NAMES
    for name in columns:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise UserError(f"data.columns: '{name}' is not a field name. Expected one of {', '.join(known)}.{hint}")


def rename(fields: Fields, columns: Mapping[str, str]) -> dict[str, Any]:
    """The fields under our names; a mapped column is no longer seen under its own."""
    for name, column in columns.items():
        if column not in fields:
            raise RowError(
                f"expected the column '{column}' (data.columns.{name}), found {_listed(fields)}; "
                f"a null counts as missing"
            )
    others = {name: value for name, value in fields.items() if name not in columns.values()}
    return others | {name: fields[column] for name, column in columns.items()}


def pair_of(fields: Fields, render: Render) -> PreferencePair:
    """A preference pair.

    With a prompt, `chosen` and `rejected` are the responses: texts, or lists of messages of which the last is the
    response.
    Without one they are whole dialogues: lists of messages, or texts in the hh-rlhf form. Both must share everything
    before the response. Of a text, the prompt goes through the last "\\n\\nAssistant:" and the response keeps the space
    after it.
    """
    _need(fields, ("chosen", "rejected"), PAIR_FORMS)
    chosen, rejected = fields["chosen"], fields["rejected"]
    if isinstance(chosen, list) or isinstance(rejected, list):
        context, good = _conversation(fields, "chosen")
        other, bad = _conversation(fields, "rejected")
        _same_prompt(context == other)
        return PreferencePair(_rendered(context, render), good, bad)
    if _question(fields) is not None:
        return PreferencePair(_prompt(fields, render), _text(fields, "chosen"), _text(fields, "rejected"))
    prompt, good = split_dialogue("chosen", _text(fields, "chosen"))
    other_prompt, bad = split_dialogue("rejected", _text(fields, "rejected"))
    _same_prompt(prompt == other_prompt)
    return PreferencePair(prompt, good, bad)


def demonstration_of(fields: Fields, render: Render) -> Demonstration:
    """A prompt with its response; of a preference pair, the chosen one."""
    response = _first(fields, ("completion", "answer"))
    if _question(fields) is not None and response is not None:
        if isinstance(fields[response], list):
            context, text = _conversation(fields, response)
            return Demonstration(_rendered(context, render), text)
        return Demonstration(_prompt(fields, render), _text(fields, response))
    if "messages" in fields:
        context, text = _conversation({"messages": fields["messages"]}, "messages")
        return Demonstration(_rendered(context, render), text)
    _need(fields, ("chosen", "rejected"), DEMONSTRATION_FORMS)
    pair = pair_of(fields, render)
    return Demonstration(pair.prompt, pair.chosen)


def labelled_of(fields: Fields, render: Render) -> LabelledResponse:
    """A prompt with its response, as in a demonstration, and `label`: whether the response is good."""
    _need(fields, ("label",), LABELLED_FORMS)
    label = fields["label"]
    if not isinstance(label, bool):
        raise RowError(f"'label': expected true or false, found {shown(label)}")
    demonstration = demonstration_of(fields, render)
    return LabelledResponse(demonstration.prompt, demonstration.response, label)


def prompt_of(fields: Fields, render: Render) -> str:
    """The prompt of a row, the same text that the row's pair or demonstration has."""
    if "chosen" in fields and "rejected" in fields:
        return pair_of(fields, render).prompt
    if _question(fields) is not None:
        has_response = _first(fields, ("completion", "answer")) is not None
        return demonstration_of(fields, render).prompt if has_response else _prompt(fields, render)
    if "messages" in fields:
        messages = _messages("messages", fields["messages"])
        return _rendered(messages[:-1] if messages[-1]["role"] == "assistant" else messages, render)
    _need(fields, ("text",), PROMPT_FORMS)
    return _text(fields, "text")


def text_of(fields: Fields, render: Render) -> str:
    """A document to pre-train on; of a pair or a demonstration, the prompt followed by the (chosen) response."""
    if "text" in fields:
        return _text(fields, "text")
    if not any(name in fields for name in NAMES):
        _need(fields, ("text",), TEXT_FORMS)
    demonstration = demonstration_of(fields, render)
    return demonstration.prompt + demonstration.response


def split_dialogue(field: str, dialogue: str) -> tuple[str, str]:
    """Cut an hh-rlhf dialogue behind its last "\\n\\nAssistant:"; the two parts together are the dialogue."""
    start = dialogue.rfind(ASSISTANT_TURN)
    if start < 0:
        raise RowError(
            f"'{field}' stands without a prompt: expected a whole dialogue with {ASSISTANT_TURN!r} before the "
            f"response, found {shown(dialogue)}"
        )
    end = start + len(ASSISTANT_TURN)
    if HUMAN_TURN in dialogue[end:]:
        raise RowError(f"'{field}': expected a dialogue that ends with the assistant's turn, found the human's last")
    return dialogue[:end], dialogue[end:]


def shown(value: object) -> str:
    """A value, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _need(fields: Fields, names: tuple[str, ...], forms: str) -> None:
    missing = [name for name in names if name not in fields]
    if missing:
        raise RowError(
            f"'{missing[0]}' is missing or null: expected {forms}; found {_listed(fields)} "
            f"(data.columns={{{missing[0]}: COLUMN}} names another column)"
        )


def _listed(fields: Fields) -> str:
    return "the fields " + listed(fields) if fields else "no fields"


def listed(fields: Fields) -> str:
    """The names of a row's fields, of which there may be many, and long ones, and some that are no Unicode text."""
    names = [str(name).encode(errors="backslashreplace").decode() for name in sorted(map(str, fields))]
    short = [name if len(name) <= 60 else f"{name[:57]}..." for name in names[:NUM_LISTED]]
    return ", ".join(short) + (f" and {len(names) - NUM_LISTED} more" if len(names) > NUM_LISTED else "")


def _first(fields: Fields, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in fields), None)


def _question(fields: Fields) -> str | None:
    return _first(fields, ("prompt", "question"))


def _text(fields: Fields, name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise RowError(f"'{name}': expected text, found {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowError(
            f"'{name}': expected Unicode text, found half a surrogate pair at character {error.start}"
        ) from None
    return value


def _messages(name: str, value: object) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise RowError(f"'{name}': expected a list of messages with role and content, found {shown(value)}")
    return [_message(name, message) for message in value]


def _message(name: str, message: object) -> Message:
    """Without the keys that are null: Arrow gives every message all keys that any has."""
    given = _without_nulls(message)
    if not isinstance(given, dict) or not isinstance(given.get("role"), str) or "content" not in given:
        raise RowError(f"'{name}': expected messages with role and content, found {shown(message)}")
    for part in ("role", "content"):
        _text(given, part)
    return given


def _without_nulls(value: object) -> Any:
    match value:
        case dict():
            return {name: _without_nulls(field) for name, field in value.items() if field is not None}
        case list():
            return [_without_nulls(item) for item in value]
        case _:
            return value


def _prompt(fields: Fields, render: Render) -> str:
    name = _question(fields)
    assert name is not None
    if isinstance(fields[name], list):
        return _rendered(_messages(name, fields[name]), render)
    return _text(fields, name)


def _conversation(fields: Fields, name: str) -> tuple[list[Message], str]:
    """(messages before the response, the response) of a list of messages that may or may not repeat the prompt's."""
    messages = _messages(name, fields[name])
    context = messages[:-1]
    question = _question(fields)
    if question is not None:
        given = fields[question]
        user = [{"role": "user", "content": _text(fields, question)}] if isinstance(given, str) else None
        prompt = user or _messages(question, given)
        if context and context != prompt:
            raise RowError(f"'{name}': expected the response's message alone, or after the messages of '{question}'")
        context = prompt
    if messages[-1]["role"] != "assistant":
        raise RowError(
            f"'{name}': expected the last message to be the assistant's, found {shown(messages[-1]['role'])}"
        )
    return context, messages[-1]["content"]


def _rendered(messages: list[Message], render: Render) -> str:
    if not messages or messages[-1]["role"] == "assistant":
        raise RowError("expected a prompt that ends with a message of the user's before the assistant's response")
    if not messages[-1]["content"].strip():
        return ""  # A template would hide that there is no question.
    return _text({"messages": render(messages)}, "messages")


def _same_prompt(same: bool) -> None:
    if not same:
        raise RowError(
            "expected 'chosen' and 'rejected' to be the same dialogue up to the last response, found two prompts"
        )
