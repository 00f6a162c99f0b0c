"""Instructions that a program can verify, as they are written in the settings or in the rows of the prompts.

The idea is IFEval's (Zhou et al. 2023, arXiv 2311.07911). `reward/rules/instructions.py` says when each is kept.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from plumbob.configs.base import Count, CountOrZero, Settings

ShortText = Annotated[str, Field(min_length=1, max_length=1000)]

Phrase = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"\S")]
"""A text that is not blank."""


class CountSettings(Settings):
    """A number that a response must have of something: at least `min`, at most `max`, or between them."""

    min: CountOrZero | None = None
    """No fewer."""
    max: CountOrZero | None = None
    """No more."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a count without bounds: give min, max or both, such as {kind: sentences, max: 1}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"a count between min={self.min} and max={self.max}: min must not be above max")
        return self


class Words(CountSettings):
    """So many words."""

    kind: Literal["words"] = "words"


class Sentences(CountSettings):
    """So many sentences; an item of a list, a heading and a block of code are one each."""

    kind: Literal["sentences"] = "sentences"


class Paragraphs(CountSettings):
    """So many paragraphs, which blank lines divide."""

    kind: Literal["paragraphs"] = "paragraphs"


class Items(CountSettings):
    """So many items of a list, with bullets or numbers."""

    kind: Literal["items"] = "items"


class Lowercase(Settings):
    """No capital letter."""

    kind: Literal["lowercase"] = "lowercase"


class Uppercase(Settings):
    """No small letter."""

    kind: Literal["uppercase"] = "uppercase"


class WithoutLetter(Settings):
    """Without one letter, large or small, with an accent or without."""

    kind: Literal["without-letter"] = "without-letter"
    letter: Annotated[str, Field(min_length=1, max_length=1)]
    """That it must not have."""


class Mention(Settings):
    """A word or a phrase, in capitals or not, at least so many times."""

    kind: Literal["mention"] = "mention"
    text: Phrase
    """As whole words; white space of any width is the same."""
    min: Count = 1
    """How often."""


class Avoid(Settings):
    """None of these words or phrases, in capitals or not."""

    kind: Literal["avoid"] = "avoid"
    texts: Annotated[tuple[Phrase, ...], Field(min_length=1)]
    """As whole words; white space of any width is the same."""


class StartsWith(Settings):
    """Begins with a text, in capitals or not."""

    kind: Literal["starts-with"] = "starts-with"
    text: Phrase
    """Its beginning."""


class EndsWith(Settings):
    """Ends with a text, in capitals or not."""

    kind: Literal["ends-with"] = "ends-with"
    text: Phrase
    """Its end."""


class Quoted(Settings):
    """All of it stands in quotation marks."""

    kind: Literal["quoted"] = "quoted"


class NoCommas(Settings):
    """Without a comma."""

    kind: Literal["no-commas"] = "no-commas"


class JsonOnly(Settings):
    """An object or a list of JSON, and nothing else."""

    kind: Literal["json-only"] = "json-only"


Instruction = Annotated[
    Words
    | Sentences
    | Paragraphs
    | Items
    | Lowercase
    | Uppercase
    | WithoutLetter
    | Mention
    | Avoid
    | StartsWith
    | EndsWith
    | Quoted
    | NoCommas
    | JsonOnly,
    Field(discriminator="kind"),
]
"""A new one is a variant here and an arm in `reward/rules/instructions.py`."""
