"""One frozen record per kind of input."""

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
