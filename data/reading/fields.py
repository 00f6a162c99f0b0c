"""Which fields of a row are the prompt and the responses, for the names that TRL, hh-rlhf and others use.

Texts are taken exactly as written, so that prompt + response is the text of the file: nothing is stripped or put
between, but what `data.prompt_template` says. Chat messages go through a template. Both are the `render` of the caller.
"""

import difflib
from collections.abc import Mapping
from typing import Any

from plumbob.configs.settings.data import LearntTurns
from plumbob.core.errors import UserError
from plumbob.data.reading.conversations import (
    answering_turns,
    check_same_prompt,
    last_turn,
    parted_turns,
    written_prompt,
    written_turn,
)
from plumbob.data.reading.field_values import Fields, listed, shown, text_at
from plumbob.data.reading.messages import CONVERSATIONS, TEMPLATE_VALUES, TOOLS, conversation_in, messages_in
from plumbob.data.reading.question import (
    BLANK_WHEN_MISSING,
    QUESTIONS,
    RESPONSES,
    question_in,
    question_of,
    response_in,
    with_system,
)
from plumbob.data.records import Demonstration, Dialogue, DialoguePair, LabelledResponse, PreferencePair, RowError
from plumbob.data.texts.chat_text import ASSISTANT_TURN, HUMAN_TURN, RowRender

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
    if isinstance(fields["chosen"], list) or isinstance(fields["rejected"], list):
        pair = _conversational_pair(fields, render)
        if len(pair.chosen.turns) + len(pair.rejected.turns) > 2:
            raise RowError(
                "expected 'chosen' and 'rejected' to be the same dialogue up to the last response, found that they "
                "part before: a dpo run alone learns from several turns of a pair"
            )
        return PreferencePair(pair.prompt, *(side.turns[0].response for side in (pair.chosen, pair.rejected)))
    if question_in(fields) is not None:
        return PreferencePair(_prompt(fields, render), text_at(fields, "chosen"), text_at(fields, "rejected"))
    prompt, good = split_dialogue("chosen", text_at(fields, "chosen"))
    other_prompt, bad = split_dialogue("rejected", text_at(fields, "rejected"))
    check_same_prompt(prompt == other_prompt)
    return PreferencePair(prompt, good, bad)


def dialogue_pair_of(fields: Fields, render: RowRender) -> DialoguePair:
    """A preference pair of which, as lists of messages, the sides may part before their last turns.

    The prompt is what they have alike up to the turn of the assistant's at which they part. From there on each side's
    turns are learnt, and what they answer is not.
    """
    _need(fields, ("chosen", "rejected"), PAIR_FORMS)
    if isinstance(fields["chosen"], list) or isinstance(fields["rejected"], list):
        return _conversational_pair(fields, render)
    pair = pair_of(fields, render)
    return DialoguePair(*(Dialogue((Demonstration(pair.prompt, text),)) for text in (pair.chosen, pair.rejected)))


def demonstration_of(fields: Fields, render: RowRender) -> Demonstration:
    """A prompt with its response; of a preference pair, the chosen one."""
    question, response = question_in(fields), response_in(fields)
    if question is not None and response is not None:
        if isinstance(fields[response], list):
            return written_turn(fields, last_turn(fields, response, question), render)
        return Demonstration(_prompt(fields, render), text_at(fields, response))
    conversation = conversation_in(fields)
    if conversation is not None:
        return written_turn(fields, last_turn(fields, conversation, None), render)
    if not ("chosen" in fields or "rejected" in fields):
        _need(fields, ("prompt" if question is None else "completion",), DEMONSTRATION_FORMS)
    _need(fields, ("chosen", "rejected"), DEMONSTRATION_FORMS)
    pair = pair_of(fields, render)
    return Demonstration(pair.prompt, pair.chosen)


def dialogue_of(fields: Fields, render: RowRender, learnt_turns: LearntTurns) -> Dialogue:
    """The turns to imitate of a row's conversation: the last, or each that answers a message; else its response."""
    name = conversation_in(fields)
    has_response = question_in(fields) is not None and response_in(fields) is not None
    if learnt_turns == "last" or name is None or has_response:
        return Dialogue((demonstration_of(fields, render),))
    turns = answering_turns(last_turn(fields, name, None), first=1)
    return Dialogue(tuple(written_turn(fields, turn, render) for turn in turns))


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
        return dialogue_pair_of(fields, render).prompt
    response = response_in(fields)
    if question_in(fields) is not None and response is not None:
        return demonstration_of(fields, render).prompt if _is_messages(fields[response]) else _prompt(fields, render)
    conversation = conversation_in(fields)
    if conversation is not None:
        messages = messages_in(conversation, fields[conversation])
        context = messages[:-1] if messages[-1]["role"] == "assistant" else messages
        return written_prompt(fields, with_system(fields, context), render)
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
    return render.prompt(question) if isinstance(question, str) else written_prompt(fields, question, render)


def _conversational_pair(fields: Fields, render: RowRender) -> DialoguePair:
    sides = parted_turns(fields, question_in(fields))
    one, other = (side[0].context for side in sides)
    prompt = written_prompt(fields, one, render)
    # By their text: messages may differ in what a template does not write, such as a weight.
    check_same_prompt(one == other or prompt == written_prompt(fields, other, render))
    chosen, rejected = (
        [written_turn(fields, turn, render, prompt if turn is first else None) for turn in (first, *later)]
        for first, *later in sides
    )
    return DialoguePair(Dialogue(tuple(chosen)), Dialogue(tuple(rejected)))
