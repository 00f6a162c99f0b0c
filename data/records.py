"""One frozen record per kind of input."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """A question for the policy.

    Attributes:
        prompt_id: stable name: a hash of the text, the same wherever and whenever the file is read.
        text: what the policy sees, chat template applied.
        row: the row that it stands in, by its columns, for rewards that read it; empty where none does.
        opening: `opening_digest` of the messages with which an environment opened it; "" where none did.
    """

    prompt_id: str
    text: str
    row: Mapping[str, Any] = field(default_factory=dict, hash=False)
    opening: str = ""


@dataclass(frozen=True)
class Demonstration:
    """A prompt with a response to imitate; `prompt` has the chat template applied, `response` carries no EOS."""

    prompt: str
    response: str


@dataclass(frozen=True)
class Dialogue:
    """Turns of the assistant's in one conversation, in their order: the prompt of each is all that stands before it.

    Attributes:
        task: number of the task that it is of, where there are several.
    """

    turns: tuple[Demonstration, ...]
    task: int = 0

    @property
    def texts(self) -> tuple[str, ...]:
        """Prompts and responses."""
        return tuple(text for turn in self.turns for text in (turn.prompt, turn.response))


@dataclass(frozen=True)
class DialoguePair:
    """Two dialogues from one prompt on, that of the first turn of each, of which a person preferred `chosen`."""

    chosen: Dialogue
    rejected: Dialogue

    @property
    def prompt(self) -> str:
        return self.chosen.turns[0].prompt

    @property
    def texts(self) -> tuple[str, ...]:
        return (*self.chosen.texts, *self.rejected.texts)


@dataclass(frozen=True)
class PreferencePair:
    """Two responses to one prompt, of which a person preferred `chosen`."""

    prompt: str
    chosen: str
    rejected: str

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.prompt, self.chosen, self.rejected)


@dataclass(frozen=True)
class Ranking:
    """Responses to one prompt in a person's order.

    Attributes:
        responses: the best first; two of them are a preference pair.
        margin: by how much the first of a pair is better; 0 where that is not asked.
        annotator: whose order it is; None where the data does not say.
    """

    prompt: str
    responses: tuple[str, ...]
    margin: float = 0.0
    annotator: str | None = None


@dataclass(frozen=True)
class ScoredResponse:
    """A response with a person's absolute score, such as 1 to 5 stars; higher is better."""

    prompt: str
    response: str
    score: float

    @property
    def responses(self) -> tuple[str, ...]:
        return (self.response,)


@dataclass(frozen=True)
class LabelledResponse:
    """A response that a person found good (`desirable`) or bad, by itself."""

    prompt: str
    response: str
    desirable: bool


def texts_of(record: object) -> tuple[str, ...]:
    """All that is written in a record, prompt and responses; a text is itself."""
    match record:
        case str():
            return (record,)
        case Prompt(text=text):
            return (text,)
        case PreferencePair() | Dialogue() | DialoguePair():
            return record.texts
        case Ranking() | ScoredResponse():
            return (record.prompt, *record.responses)
        case Demonstration() | LabelledResponse():
            return (record.prompt, record.response)
        case _:
            raise TypeError(f"a {type(record).__name__} is no record")


def prompt_id_of(text: str) -> str:
    """Stable name of a prompt: 16 hex digits of the SHA-256 of its text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_prompt(text: str) -> Prompt:
    return Prompt(prompt_id_of(text), text)


def opening_digest(messages: Sequence[Mapping[str, Any]]) -> str:
    """By which it is known whether an episode opens as its prompt says."""
    return prompt_id_of(json.dumps(messages, sort_keys=True))


class RowError(ValueError):
    """A row that is malformed: what was expected and what was found."""
