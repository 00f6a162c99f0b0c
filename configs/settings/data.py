"""Which files a run reads, how their records are read, split and cut."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from plumbob.configs.base import Count, Factor, Fraction, InputFile, NumTokens, Positive, Settings
from plumbob.configs.settings.stewardship.data_checks import DataCheckSettings

PROMPT_PLACE = "{prompt}"
"""Where a prompt template has the prompt."""


def prompt_template_fault(template: object) -> str | None:
    """What is wrong with a prompt template, as words that follow its value; None where it can be used."""
    if not isinstance(template, str):
        return "is no text"
    if template.encode(errors="ignore").decode() != template:
        return "has half a surrogate pair, which is no Unicode text"
    times = template.count(PROMPT_PLACE)
    if times != 1:
        example = f"'Question: {PROMPT_PLACE}\\nAnswer:'"
        return f"has {PROMPT_PLACE} {times} times: it stands for the prompt, once, as in {example}"
    return None


def _check_prompt_template(template: str) -> str:
    fault = prompt_template_fault(template)
    if fault is not None:
        raise ValueError(f"data.prompt_template={template!r} {fault}")
    return template


LearntTurns = Literal["last", "all"]


class ReadingSettings(Settings):
    """How the records of a file are read."""

    columns: dict[str, str] = Field(default_factory=dict)
    """Our field name -> the file's column, for files whose names are not recognised."""
    bad_rows: Literal["refuse", "skip"] = "refuse"
    """What to do about rows that cannot be read: end the run, or leave them out and say so."""
    prompt_template: Annotated[str, AfterValidator(_check_prompt_template)] | None = None
    """What is put around each prompt that is given as text, with `{prompt}` in its place; messages have the chat
    template. None takes that which the model was trained with, if any."""
    rendered: bool = False
    """Whether texts are as the model is to read them: nothing is put around them, and the control tokens that they
    spell are meant. Else they are letters."""


class SplittingSettings(Settings):
    """How training and held-out records are kept apart."""

    overlap: Literal["refuse", "drop"] = "refuse"
    """What to do with records whose prompt stands in both the training and the held-out split."""
    heldout_fraction: Fraction = 0.05
    """Share of the prompts kept apart when no held-out file is given."""
    checks: DataCheckSettings = DataCheckSettings()


class MixtureSettings(SplittingSettings):
    """Records of one file, or of several by mixture weights."""

    one_file: ClassVar[str]
    """The setting that names it."""
    mixture: dict[InputFile, Positive] = Field(default_factory=dict)
    """Several files in place of the one, each with its weight, such as `{a.jsonl: 3, b.jsonl: 1}`: its share of the
    records of every epoch, whatever its size."""

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        key, has_one = f"data.{self.one_file}", self.given_file is not None
        if has_one and self.mixture:
            raise ValueError(f"{key} names one file and data.mixture several with their weights: give one of them")
        if not has_one and not self.mixture:
            raise ValueError(f"{key} is missing: give {key}=FILE, or data.mixture='{{FILE: WEIGHT, FILE: WEIGHT}}'")
        return self

    @property
    def given_file(self) -> str | None:
        """The one file; None where there are several."""
        raise NotImplementedError

    @property
    def weights(self) -> dict[str, float]:
        """File -> its weight, in the order of their names; of the one file 1."""
        return dict(sorted(self.mixture.items())) if self.given_file is None else {self.given_file: 1.0}


class PromptLengthSettings(Settings):
    max_prompt_tokens: NumTokens = 512
    """Longer prompts are left out, and their number is reported."""


class LengthSettings(PromptLengthSettings):
    max_response_tokens: NumTokens = 512
    """Records with longer responses are left out, and their number is reported."""


class TextDataSettings(SplittingSettings, ReadingSettings):
    text: InputFile
    """Documents to learn from."""
    heldout_text: InputFile | None = None
    """Documents to measure on; None holds a share of `text` out."""


class TextBlockSettings(ReadingSettings):
    """Running text beside a stage's own data, cut into sequences of the model's tokens."""

    text: InputFile
    """Documents."""
    block_tokens: NumTokens = 128
    """Tokens of one sequence."""


class PerplexitySettings(TextBlockSettings):
    """Running text whose perplexity is measured."""

    max_blocks: Count = 256
    """Blocks that are measured, spread evenly over the text."""


class RetentionSettings(PerplexitySettings):
    """What the policy must not forget: its perplexity on this text is measured before and after the stage."""

    max_growth: Factor = 1.2
    """Perplexity after the stage over that before it: the largest that passes without a note."""


class ReplaySettings(TextBlockSettings):
    """Text that the policy continues to learn: one block beside each record of an optimizer step."""

    coefficient: Positive = 1.0
    """Of its mean loss a token, beside the stage's own loss."""


class DemonstrationDataSettings(LengthSettings, MixtureSettings, ReadingSettings):
    one_file = "demonstrations"

    demonstrations: InputFile | None = None
    """Prompts with the response to imitate."""
    heldout_demonstrations: InputFile | None = None
    """To measure on; None holds a share out."""
    learnt_turns: LearntTurns = "last"
    """Which turns of the assistant's are learnt of a row's `messages` or `conversations`: the last, whose prompt is all
    before it, or each that answers a message, as if the conversation up to it were a row of its own."""

    @property
    def given_file(self) -> str | None:
        return self.demonstrations


class FeedbackDataSettings(PromptLengthSettings, SplittingSettings, ReadingSettings):
    """What a reward model learns from; its own limit is of prompt and response together: `reward.max_tokens`.

    `max_prompt_tokens` is of the prompts that a policy answers for the calibration.
    """

    pairs: InputFile | None = None
    """Prompts with a better and a worse response."""
    heldout_pairs: InputFile | None = None
    """To measure on; None holds a share out."""
    rankings: InputFile | None = None
    """Prompts with several responses, the best first."""
    heldout_rankings: InputFile | None = None
    """To measure on; None holds a share out."""
    scores: InputFile | None = None
    """Prompts with a response and its score."""
    heldout_scores: InputFile | None = None
    """To measure on; None holds a share out."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        files = {"pairs": self.pairs, "rankings": self.rankings, "scores": self.scores}
        given = [name for name, path in files.items() if path is not None]
        if len(given) != 1:
            found = " and ".join(f"data.{name}" for name in given) or "none of them"
            raise ValueError(
                "a reward model learns from one of data.pairs=FILE (the better and the worse of two responses), "
                "data.rankings=FILE (several responses, best first) and data.scores=FILE (a score for each response): "
                f"found {found}"
            )
        heldout = {"pairs": self.heldout_pairs, "rankings": self.heldout_rankings, "scores": self.heldout_scores}
        for name, path in heldout.items():
            if path is not None and name != given[0]:
                raise ValueError(f"data.heldout_{name} does not go with data.{given[0]}: give data.heldout_{given[0]}")
        return self

    @property
    def kind(self) -> Literal["pairs", "rankings", "scores"]:
        """Which of them is given."""
        return "pairs" if self.pairs is not None else "rankings" if self.rankings is not None else "scores"


class TokenizedPairDataSettings(LengthSettings, MixtureSettings, ReadingSettings):
    """Pairs for a policy."""

    one_file = "pairs"

    pairs: InputFile | None = None
    """Prompts with a better and a worse response."""
    heldout_pairs: InputFile | None = None
    """To measure on; None holds a share out."""

    @property
    def given_file(self) -> str | None:
        return self.pairs


class LabelledDataSettings(LengthSettings, MixtureSettings, ReadingSettings):
    """Responses that are each labelled good or bad."""

    one_file = "labelled"

    labelled: InputFile | None = None
    """Prompts with a response that is good or bad."""
    heldout_labelled: InputFile | None = None
    """To measure on; None holds a share out."""

    @property
    def given_file(self) -> str | None:
        return self.labelled


class PromptDataSettings(PromptLengthSettings, MixtureSettings, ReadingSettings):
    one_file = "prompts"

    prompts: InputFile | None = None
    """What the policy is asked."""
    heldout_prompts: InputFile | None = None
    """Kept apart for an evaluation; None holds a share out."""

    @property
    def given_file(self) -> str | None:
        return self.prompts


NumToyRecords = Annotated[int, Field(gt=0, le=1_000_000)]
"""They are all made before anything starts."""


class ToyWorldSettings(Settings):
    """Size of the generated world that the embedded default is about."""

    num_cars: NumToyRecords = 6
    """Cars that questions are about."""
    num_texts: NumToyRecords = 6000
    """Documents for pre-training."""
    num_demonstrations: NumToyRecords = 1500
    """For supervised fine-tuning."""
    num_pairs: NumToyRecords = 8000
    """To train the reward model and DPO on."""
    num_heldout_pairs: NumToyRecords = 3000
    """To measure on."""
    preference_noise: Positive = 0.5
    """Temperature of the simulated annotator: P(a over b) = sigmoid((gold(a) - gold(b)) / noise)."""


class PipelineDataSettings(LengthSettings, SplittingSettings, ReadingSettings):
    """Input of the whole pipeline. What is not given is derived from the pairs: text, demonstrations and prompts."""

    toy: ToyWorldSettings | None = None
    pairs: InputFile | None = None
    """Prompts with a better and a worse response."""
    heldout_pairs: InputFile | None = None
    """To measure on; None holds a share out."""
    demonstrations: InputFile | None = None
    """For supervised fine-tuning."""
    learnt_turns: LearntTurns = "last"
    """Which turns of the assistant's are learnt of the `messages` or `conversations` of `demonstrations`: the last, or
    each that answers a message, behind all before it."""
    prompts: InputFile | None = None
    """What the policy is asked."""
    text: InputFile | None = None
    """Documents for pre-training."""

    @model_validator(mode="after")
    def _check_learnt_turns(self) -> Self:
        if self.learnt_turns == "all" and self.demonstrations is None:
            raise ValueError(
                "data.learnt_turns=all is about conversations to imitate: give them as data.demonstrations=FILE, or "
                "leave it out; of pairs the chosen response is learnt"
            )
        return self


class EvalDataSettings(PromptLengthSettings, ReadingSettings):
    prompts: InputFile | None = None
    """What a policy is asked."""
    pairs: InputFile | None = None
    """What a reward model is measured on."""
