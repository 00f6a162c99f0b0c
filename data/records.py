"""One frozen record per kind of input."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """A question for the policy.

    Attributes:
        prompt_id: stable name: a hash of the text, the same wherever and whenever the file is read.
        text: what the policy sees, chat template applied.
    """

    prompt_id: str
    text: str


@dataclass(frozen=True)
class Demonstration:
    """A prompt with an answer to imitate; `prompt` has the chat template applied, `answer` carries no EOS."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt, of which a person preferred `chosen`."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Ranking:
    """Answers to one prompt in a person's order.

    Attributes:
        answers: the best first; two of them are a preference pair.
        margin: by how much the first of a pair is better; 0 where that is not asked.
        annotator: who judged; None where the data does not say.
    """

    prompt: str
    answers: tuple[str, ...]
    margin: float = 0.0
    annotator: str | None = None


@dataclass(frozen=True)
class ScoredResponse:
    """An answer with a person's absolute score, such as 1 to 5 stars; higher is better."""

    prompt: str
    answer: str
    score: float

    @property
    def answers(self) -> tuple[str, ...]:
        return (self.answer,)


@dataclass(frozen=True)
class LabelledResponse:
    """An answer that a person found good (`desirable`) or bad, by itself."""

    prompt: str
    answer: str
    desirable: bool


def prompt_id_of(text: str) -> str:
    """Stable name of a prompt: 16 hex digits of the SHA-256 of its text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_prompt(text: str) -> Prompt:
    return Prompt(prompt_id_of(text), text)


class RowError(ValueError):
    """A row that is malformed: what was expected and what was found."""
