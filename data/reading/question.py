"""What a row asks: its prompt, with Alpaca's `input` and the row's `system` message, as text or as messages."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from plumbob.data.reading.field_values import Fields, shown, text_at
from plumbob.data.reading.messages import TEMPLATE_VALUES, TOOLS, messages_in
from plumbob.data.records import RowError
from plumbob.data.texts.chat_text import Message

QUESTIONS = ("prompt", "question", "instruction")
"""The first of them that a row has is its question."""

RESPONSES = ("completion", "answer", "output")

INPUT, SYSTEM = "input", "system"

BLANK_WHEN_MISSING = (INPUT, SYSTEM)
"""Beside rows that have one, a row without it is written in the same form: as where it is blank."""

# Taori et al. 2023, "Stanford Alpaca", the prompts of its training code; the response follows at once.
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
ALPACA_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)

ASKED = (*QUESTIONS, INPUT, SYSTEM, TOOLS, TEMPLATE_VALUES)
"""What a prompt is made of."""


@dataclass(frozen=True)
class _Asked(Mapping[str, Any]):
    """Of a row what its prompt is made of, and one response. Nothing is taken from the row before it is asked for."""

    row: Fields
    answer: object

    def __getitem__(self, name: str) -> Any:
        return self.answer if name == "answer" else self.row[name]

    def __contains__(self, name: object) -> bool:
        return name == "answer" or (name in ASKED and name in self.row)

    def __iter__(self) -> Iterator[str]:
        return iter(("answer", *(name for name in ASKED if name in self.row)))

    def __len__(self) -> int:
        return 1 + sum(name in self.row for name in ASKED)


def question_in(fields: Fields) -> str | None:
    """The name of the field that the row's question stands in."""
    return next((name for name in QUESTIONS if name in fields), None)


def response_in(fields: Fields) -> str | None:
    return next((name for name in RESPONSES if name in fields), None)


def answered(fields: Fields, response: object) -> Fields:
    """The fields of a row that its prompt is made of, with `response` as its `answer`, whatever responses it has."""
    return _Asked(fields, response)


def question_of(fields: Fields, name: str) -> str | list[Message]:
    """The question in the field `name`: text as it is written, or messages where it is a list or has a system message.

    `instruction` beside `input` becomes one text in the form that Alpaca was published with.
    """
    if isinstance(fields[name], list):
        return with_system(fields, messages_in(name, fields[name]))
    text = _question_text(fields, name)
    return with_system(fields, [_user(text)]) if SYSTEM in fields else text


def question_messages(fields: Fields, name: str) -> list[Message]:
    """The same, always as messages."""
    question = question_of(fields, name)
    return [_user(question)] if isinstance(question, str) else question


def with_system(fields: Fields, messages: list[Message]) -> list[Message]:
    """The messages behind the row's system message, if it has one. RowError when they begin with another."""
    text = text_at(fields, SYSTEM) if SYSTEM in fields else ""
    if not text.strip():
        return messages
    if messages and messages[0]["role"] == SYSTEM:
        if messages[0]["content"] != text:
            raise RowError(f"expected one system message, found '{SYSTEM}': {shown(text)} beside {shown(messages[0])}")
        return messages
    return [{"role": SYSTEM, "content": text}, *messages]


def _question_text(fields: Fields, name: str) -> str:
    text = text_at(fields, name)
    if name != "instruction" or INPUT not in fields:
        return text
    given = text_at(fields, INPUT)
    if not text.strip() and not given.strip():
        return ""  # The form would hide that nothing is asked.
    form = ALPACA_WITH_INPUT if given.strip() else ALPACA_WITHOUT_INPUT
    return form.format(instruction=text, input=given)


def _user(text: str) -> Message:
    return {"role": "user", "content": text}
