"""Which fields of a row are the prompt and the responses, for the names that TRL, hh-rlhf and others use.

Texts are taken exactly as written, so that prompt + response is the text of the file: nothing is stripped or put
between, but what `data.prompt_template` says. Chat messages go through a template. Both are the `render` of the caller.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plumbob.core.errors import UserError
from plumbob.data.reading.field_values import Fields, listed, shown, text_at
from plumbob.data.reading.messages import (
    CONVERSATIONS,
    TEMPLATE_VALUES,
    TOOLS,
    conversation_in,
    messages_in,
    template_values,
)
from plumbob.data.reading.question import (
    BLANK_WHEN_MISSING,
    QUESTIONS,
    RESPONSES,
    question_in,
    question_messages,
    question_of,
    response_in,
    with_system,
)
from plumbob.data.records import Demonstration, LabelledResponse, PreferencePair, RowError
from plumbob.data.texts.chat import ASSISTANT_TURN, HUMAN_TURN, Message, RowRender

BESIDE = (*BLANK_WHEN_MISSING, TOOLS, TEMPLATE_VALUES)
"""What stands beside a prompt or a conversation."""

NAMES = (*QUESTIONS, "chosen", "rejected", *RESPONSES, "label", *CONVERSATIONS, "text", *BESIDE)
FEEDBACK_NAMES = ("answers", "ranks", "scores", "score", "margin", "annotator")
PAIR_FORMS = "prompt + chosen + rejected, or chosen + rejected as whole dialogues"
DEMONSTRATION_FORMS = (
    "prompt + completion, question + answer, instruction + output, messages or conversations, or a preference pair"
)
LABELLED_FORMS = "prompt + completion + label, or messages or conversations + label"
PROMPT_FORMS = "prompt, question, messages or conversations, chosen + rejected as whole dialogues, or text"
_PROBE = "the response's end is looked for behind this"

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
    """The fields under our names; a mapped column is no longer seen under its own.

    A prompt that is Alpaca's `instruction` keeps that name, by which its `input` is found.
    """
    columns = {"instruction" if column == "instruction" else name: column for name, column in columns.items()}
    for name, column in columns.items():
        if column not in fields:
            raise RowError(
                f"expected the column '{column}' (data.columns.{name}), found {_listed(fields)}; "
                f"a null counts as missing"
            )
    others = {name: value for name, value in fields.items() if name not in columns.values()}
    return others | {name: fields[column] for name, column in columns.items()}


def pair_of(fields: Fields, render: RowRender) -> PreferencePair:
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
        question = question_in(fields)
        chosen, rejected = _conversation(fields, "chosen", question), _conversation(fields, "rejected", question)
        _same_prompt(_plain(chosen.context) == _plain(rejected.context))
        prompt = _rendered(fields, chosen.context, render)
        # By their text: messages may differ in what a template does not write, such as a weight.
        _same_prompt(chosen.context == rejected.context or prompt == _rendered(fields, rejected.context, render))
        return PreferencePair(prompt, *(_response(fields, one, prompt, render) for one in (chosen, rejected)))
    if question_in(fields) is not None:
        return PreferencePair(_prompt(fields, render), text_at(fields, "chosen"), text_at(fields, "rejected"))
    prompt, good = split_dialogue("chosen", text_at(fields, "chosen"))
    other_prompt, bad = split_dialogue("rejected", text_at(fields, "rejected"))
    _same_prompt(prompt == other_prompt)
    return PreferencePair(prompt, good, bad)


def demonstration_of(fields: Fields, render: RowRender) -> Demonstration:
    """A prompt with its response; of a preference pair, the chosen one."""
    question, response = question_in(fields), response_in(fields)
    if question is not None and response is not None:
        if isinstance(fields[response], list):
            return _last_turn(fields, response, question, render)
        return Demonstration(_prompt(fields, render), text_at(fields, response))
    conversation = conversation_in(fields)
    if conversation is not None:
        return _last_turn(fields, conversation, None, render)
    if not ("chosen" in fields or "rejected" in fields):
        _need(fields, ("prompt" if question is None else "completion",), DEMONSTRATION_FORMS)
    _need(fields, ("chosen", "rejected"), DEMONSTRATION_FORMS)
    pair = pair_of(fields, render)
    return Demonstration(pair.prompt, pair.chosen)


def labelled_of(fields: Fields, render: RowRender) -> LabelledResponse:
    """A prompt with its response, as in a demonstration, and `label`: whether the response is good."""
    _need(fields, ("label",), LABELLED_FORMS)
    label = fields["label"]
    if not isinstance(label, bool):
        raise RowError(f"'label': expected true or false, found {shown(label)}")
    demonstration = demonstration_of(fields, render)
    return LabelledResponse(demonstration.prompt, demonstration.response, label)


def prompt_of(fields: Fields, render: RowRender) -> str:
    """The prompt of a row, the same text that the row's pair or demonstration has.

    A response beside a question may be anything, such as the number that a reward compares with.
    """
    if "chosen" in fields and "rejected" in fields:
        return pair_of(fields, render).prompt
    response = response_in(fields)
    if question_in(fields) is not None and response is not None:
        return demonstration_of(fields, render).prompt if _is_messages(fields[response]) else _prompt(fields, render)
    conversation = conversation_in(fields)
    if conversation is not None:
        messages = messages_in(conversation, fields[conversation])
        context = messages[:-1] if messages[-1]["role"] == "assistant" else messages
        return _rendered(fields, with_system(fields, context), render)
    if question_in(fields) is not None:
        return _prompt(fields, render)
    _need(fields, ("text",), PROMPT_FORMS)
    return render.prompt(text_at(fields, "text"))


def _is_messages(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(one, dict) for one in value)


def text_of(fields: Fields, render: RowRender) -> str:
    """A document to pre-train on; of a pair or a demonstration, the prompt followed by the (chosen) response."""
    if "text" in fields:
        return text_at(fields, "text")
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


def _need(fields: Fields, names: tuple[str, ...], forms: str) -> None:
    missing = [name for name in names if name not in fields]
    if missing:
        raise RowError(
            f"'{missing[0]}' is missing or null: expected {forms}; found {_listed(fields)} "
            f"(data.columns={{{missing[0]}: COLUMN}} names another column)"
        )


def _listed(fields: Fields) -> str:
    return "the fields " + listed(fields) if fields else "no fields"


def _prompt(fields: Fields, render: RowRender) -> str:
    name = question_in(fields)
    assert name is not None
    question = question_of(fields, name)
    return render.prompt(question) if isinstance(question, str) else _rendered(fields, question, render)


@dataclass(frozen=True)
class _Conversation:
    """The messages before a response, and the response's own, which stands in the field `name`."""

    name: str
    context: list[Message]
    response: Message


def _conversation(fields: Fields, name: str, question: str | None) -> _Conversation:
    """Of a list of messages that may or may not repeat the prompt's; `question` names its field, where there is one."""
    messages = messages_in(name, fields[name])
    context = messages[:-1]
    if question is not None:
        prompt = question_messages(fields, question)
        if context and with_system(fields, context) != prompt:
            raise RowError(f"'{name}': expected the response's message alone, or after the messages of '{question}'")
        context = prompt
    else:
        context = with_system(fields, context)
    if messages[-1]["role"] != "assistant":
        raise RowError(
            f"'{name}': expected the last message to be the assistant's, found {shown(messages[-1]['role'])}"
        )
    return _Conversation(name, context, messages[-1])


def _last_turn(fields: Fields, name: str, question: str | None, render: RowRender) -> Demonstration:
    conversation = _conversation(fields, name, question)
    prompt = _rendered(fields, conversation.context, render)
    return Demonstration(prompt, _response(fields, conversation, prompt, render))


def _rendered(fields: Fields, messages: list[Message], render: RowRender) -> str:
    if not messages or messages[-1]["role"] == "assistant":
        raise RowError("expected a prompt that ends with a message of the user's before the assistant's response")
    if messages[-1]["role"] != "tool" and not messages[-1]["content"].strip():
        return ""  # A template would hide that there is no question.
    return text_at({"messages": render(messages, **template_values(fields))}, "messages")


def _response(fields: Fields, conversation: _Conversation, prompt: str, render: RowRender) -> str:
    """The response's text; where its message carries more, such as tool calls, what the template writes of it all."""
    name, response = conversation.name, conversation.response
    content: str = response["content"]
    if not prompt:
        return content
    values = template_values(fields)
    if response.keys() == {"role", "content"}:
        return render.response(conversation.context, response, prompt, **values)

    def whole(message: Message) -> str:
        return text_at({name: render([*conversation.context, message], **values, add_generation_prompt=False)}, name)

    written = whole(response)
    if "tool_calls" in response and written == whole({key: response[key] for key in response if key != "tool_calls"}):
        raise RowError(
            f"'{name}': the response has tool_calls, which the chat template does not write, so that they would not "
            f"be learnt: give the model a chat template that does, or leave such rows out"
        )
    if written == whole({"role": response["role"], "content": content}):
        return render.response(conversation.context, response, prompt, **values)
    if not written.startswith(prompt):
        raise RowError(
            f"'{name}': the chat template writes a conversation with a response otherwise than the prompt that asks "
            f"for it, so that the response's own part cannot be told: {shown(written)}"
        )
    end = whole({"role": response["role"], "content": _PROBE}).rpartition(_PROBE)[2]
    learnt = written.removeprefix(prompt)
    return learnt.removesuffix(end) if end.strip() and learnt.endswith(end) else render.ended(learnt)


def _plain(messages: list[Message]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in messages]


def _same_prompt(same: bool) -> None:
    if not same:
        raise RowError(
            "expected 'chosen' and 'rejected' to be the same dialogue up to the last response, found two prompts"
        )
