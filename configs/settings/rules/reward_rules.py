"""The parts of a reward that are rules: functions of a response's text and, for some, of the prompt's row."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from plumbob.configs.base import PositiveOrZero
from plumbob.configs.settings.reward_parts import PartSettings
from plumbob.configs.settings.rules.instructions import CountSettings, Instruction, ShortText

Column = Annotated[str, Field(min_length=1, max_length=1000)]
"""Of the prompts' rows, by our name of it where `data.columns` gives it one."""

CpuSeconds = Annotated[float, Field(ge=0.1, le=600)]


class RuleSettings(PartSettings):
    """What each rule has. A rule is the same function of the same text wherever it runs."""

    after: ShortText | None = None
    """The rule reads what follows the last of this text alone, such as `</think>`; a response without it is worth 0."""


class ContainsRule(RuleSettings):
    """1 where a response contains texts, else 0."""

    kind: Literal["contains"] = "contains"
    texts: Annotated[tuple[ShortText, ...], Field(min_length=1)]
    """What is looked for, anywhere, in words too."""
    match: Literal["all", "any"] = "all"
    """Whether all of them must be there, or one is enough."""
    case_sensitive: bool = True
    """Whether capitals must be the same."""


class RegexRule(RuleSettings):
    """1 where a regular expression matches somewhere in a response, else 0."""

    kind: Literal["regex"] = "regex"
    pattern: ShortText
    """In the syntax of the Python package `regex`, which is that of `re` and more."""
    timeout_s: CpuSeconds = 1.0
    """A search that takes longer is ended: the response is worth 0, and counted as one that failed."""


class FormatRule(RuleSettings):
    """1 where a regular expression matches the whole of a response, without white space around it, else 0."""

    kind: Literal["format"] = "format"
    pattern: ShortText
    """As for `regex`; a dot matches line breaks too."""
    timeout_s: CpuSeconds = 1.0
    """A search that takes longer is ended: the response is worth 0, and counted as one that failed."""


class LengthRule(RuleSettings, CountSettings):
    """1 where a response is at least `min` and at most `max` long, else 0."""

    kind: Literal["length"] = "length"
    unit: Literal["words", "characters", "sentences"] = "words"
    """What is counted."""


class LanguageRule(RuleSettings):
    """1 where a response is most likely in a language, else 0; one without letters is in none."""

    kind: Literal["language"] = "language"
    language: Annotated[str, Field(pattern="^[a-z]{2,3}$")]
    """By its code of two letters, such as `en`."""


class ColumnRule(RuleSettings):
    """A rule that compares with what stands in the prompt's row."""

    column: Column = "answer"
    """Where in the row the right answer stands."""

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)


class ExactRule(ColumnRule):
    """1 where a response is the row's answer, or one of them where that is a list, else 0."""

    kind: Literal["exact"] = "exact"
    normalise: bool = True
    """Whether capitals, forms of the same letter, white space and punctuation around it are the same to it."""


class NumericRule(ColumnRule):
    """1 where the last number of a response is that of the row, else 0; after `####`, as in GSM8K, the first."""

    kind: Literal["numeric"] = "numeric"
    tolerance: PositiveOrZero = 0.0
    """How far it may be off."""


class BoundedRule(RuleSettings):
    """A rule whose time only a process of its own can bound."""

    timeout_s: CpuSeconds = 5.0
    """CPU seconds; one that takes more is ended: the response is worth 0, and counted as one that failed."""


class MathRule(ColumnRule, BoundedRule):
    """1 where a response's last formula or number is mathematically equal to the row's, by `math-verify`, else 0."""

    kind: Literal["math"] = "math"


class JsonRule(BoundedRule):
    """1 where a response is JSON, and fulfils a schema if there is one, else 0."""

    kind: Literal["json"] = "json"
    json_schema: dict[str, Any] | None = None
    """A JSON Schema; what it refers to stands within it."""


class InstructionsRule(RuleSettings):
    """The share of verifiable instructions that a response keeps, from 0 to 1."""

    kind: Literal["instructions"] = "instructions"
    instructions: tuple[Instruction, ...] = ()
    """For every prompt."""
    column: Column | None = None
    """Where in the row a list of further ones stands, of the same form."""
    all_or_nothing: bool = False
    """1 where all are kept, else 0, instead of their share."""

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.column is None else (self.column,)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.instructions and self.column is None:
            raise ValueError(
                "a part of kind instructions has none: give instructions=[{kind: sentences, max: 1}, ...], the column "
                "of the prompts' rows that has them, or both"
            )
        return self


RulePart = (
    ContainsRule
    | RegexRule
    | FormatRule
    | LengthRule
    | LanguageRule
    | ExactRule
    | NumericRule
    | MathRule
    | JsonRule
    | InstructionsRule
)
"""A new one is a variant here, and `KIND_part.py` in `reward/parts/rules/`, which opens it."""
