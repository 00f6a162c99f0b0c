"""Which files a run reads, how their records are read, split and cut."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from configs.section import Fraction, Section


class Reading(Section):
    """How the records of a file are read."""

    columns: dict[str, str] = Field(default_factory=dict)
    """Our field name -> the file's column, for files whose names are not recognised."""
    bad_rows: Literal["refuse", "skip"] = "refuse"


class Splitting(Section):
    """How training and held-out records are kept apart."""

    overlap: Literal["refuse", "drop"] = "refuse"
    """What to do with records whose prompt stands in both the training and the held-out split."""
    heldout_fraction: Fraction = 0.05
    """Share of the prompts kept apart when no held-out file is given."""


class PromptLength(Section):
    max_prompt_tokens: PositiveInt = 512


class Lengths(PromptLength):
    max_answer_tokens: PositiveInt = 512


class TextData(Splitting, Reading):
    text: str
    heldout_text: str | None = None


class DemonstrationData(Lengths, Splitting, Reading):
    demonstrations: str
    heldout_demonstrations: str | None = None


class PairData(Splitting, Reading):
    pairs: str
    heldout_pairs: str | None = None


class JudgedPairData(PromptLength, PairData):
    """Pairs for a reward model, whose own limit is of prompt and answer together: `reward.max_tokens`.

    `max_prompt_tokens` is of the prompts that a policy answers for the calibration.
    """


class TokenizedPairData(Lengths, PairData):
    """Pairs for a policy."""


class PromptData(PromptLength, Splitting, Reading):
    prompts: str
    heldout_prompts: str | None = None


class ToyWorld(Section):
    """Size of the generated world that the embedded default is about."""

    num_cars: PositiveInt = 6
    num_texts: PositiveInt = 6000
    num_demonstrations: PositiveInt = 1500
    num_pairs: PositiveInt = 8000
    num_heldout_pairs: PositiveInt = 3000
    preference_noise: PositiveFloat = 0.5
    """Temperature of the simulated annotator: P(a over b) = sigmoid((gold(a) - gold(b)) / noise)."""


class PipelineData(Lengths, Splitting, Reading):
    """Input of the whole pipeline. What is not given is derived from the pairs: text, demonstrations and prompts."""

    toy: ToyWorld | None = None
    pairs: str | None = None
    heldout_pairs: str | None = None
    demonstrations: str | None = None
    prompts: str | None = None
    text: str | None = None


class EvalData(PromptLength, Reading):
    prompts: str | None = None
    pairs: str | None = None
