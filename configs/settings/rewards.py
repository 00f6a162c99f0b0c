"""The reward of responses, as a union of its kinds (RewardPart), and how large the group of its scorers is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from plumbob.configs.base import BatchSize, ModelName, NumTokens, PositiveOrZero
from plumbob.configs.settings.models import REWARD_MODEL, ModelRef, NewBertSettings, RewardEncoderSettings
from plumbob.configs.settings.programs.reward_programs import ProgramPart
from plumbob.configs.settings.reward_parts import ModelPart, PlainPart
from plumbob.configs.settings.reward_services import ServedPart
from plumbob.configs.settings.rules.reward_rules import RulePart
from plumbob.configs.settings.tuning.encoders import EncoderTuning, WholeEncoder, check_encoder_tuning
from plumbob.configs.settings.tuning.quantization import Nf4Quantization
from plumbob.configs.settings.workers import WorkerGroupSettings

# ----------------------------------------------------------------------------------------------------------- the union


@dataclass(frozen=True)
class ModelReward:
    """One BERT reward model.

    Attributes:
        batch_size: responses in one forward. Changes memory and speed, never a score.
        max_tokens: of prompt and response together, the reward model's own tokens.
        is_calibrated: scores get mean 0 and variance 1 by the calibration stored with the model; else they are raw.
    """

    model: ModelRef
    batch_size: int
    max_tokens: int
    is_calibrated: bool

    @property
    def models(self) -> tuple[ModelRef, ...]:
        return (self.model,)

    reads_rows: ClassVar[bool] = False
    keeps_answers: ClassVar[bool] = False


@dataclass(frozen=True)
class EnsembleReward:
    """Several reward models: the mean of their scores, less `uncertainty_penalty` times how far they disagree."""

    members: tuple[ModelReward, ...]
    uncertainty_penalty: float
    reads_rows: ClassVar[bool] = False
    keeps_answers: ClassVar[bool] = False

    @property
    def models(self) -> tuple[ModelRef, ...]:
        return tuple(member.model for member in self.members)

    @property
    def batch_size(self) -> int:
        return max(member.batch_size for member in self.members)

    @property
    def is_calibrated(self) -> bool:
        return all(member.is_calibrated for member in self.members)


@dataclass(frozen=True)
class RuleReward:
    """A function of (prompt, response), such as the toy world's hand-written gold reward."""

    rule: Callable[[str, str], float]
    batch_size: int = 32
    models: ClassVar[tuple[ModelRef, ...]] = ()
    is_calibrated: ClassVar[bool] = False
    reads_rows: ClassVar[bool] = False
    keeps_answers: ClassVar[bool] = False


@dataclass(frozen=True)
class WeightedPart:
    """One part of a reward.

    Attributes:
        name: of its values, in the journal and the metrics.
        weight: what its value counts in the sum.
        is_gate: a value of 0 makes the whole 0.
        columns: of the prompts' rows, those that it cannot score without.
    """

    name: str
    reward: "Reward"
    weight: float
    is_gate: bool
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class CombinedReward:
    """Several parts: the sum of weight x value, or 0 where a gate's value is 0."""

    parts: tuple[WeightedPart, ...]

    @property
    def models(self) -> tuple[ModelRef, ...]:
        return tuple(dict.fromkeys(model for part in self.parts for model in part.reward.models))

    @property
    def batch_size(self) -> int:
        return max(part.reward.batch_size for part in self.parts)

    @property
    def reads_rows(self) -> bool:
        return any(part.reward.reads_rows for part in self.parts)

    @property
    def keeps_answers(self) -> bool:
        return any(part.reward.keeps_answers for part in self.parts)


OwnReward = PlainPart | ServedPart | RulePart | ProgramPart
"""Parts that are a reward themselves. A new one is a variant in one of their modules, and a file below `reward/parts/`
that scores, which is found by its name: nobody asks which it is."""

RewardPart = Annotated[ModelPart | OwnReward, Field(discriminator="kind")]
"""What `reward.parts` is a list of; a `ModelPart` becomes a `ModelReward`."""

Reward = ModelReward | EnsembleReward | RuleReward | CombinedReward | OwnReward
"""Each says which models every scorer's host must have, how many responses it scores together, whether it reads the
prompts' rows, and whether its answers are kept for the whole run, since each of them costs."""


# -------------------------------------------------------------------------------------------------- as it is written

REWARDS_TODAY = (
    "a reward is a trained reward model, a folder or hub name of a sequence classifier with one "
    "output (reward.model=FOLDER, further ones as reward.ensemble), or a list of parts of which each has a kind and a "
    "weight (reward.parts, docs/rewards.md), or both"
)


def no_reward(section: str) -> str:
    """The message about a reward that there must be."""
    return f"{section}.model is missing, and there are no {section}.parts; {REWARDS_TODAY}"


MODEL = "model"
"""What `model` is called among the parts."""

RESERVED_NAMES = ("gold_reward",)
"""What the journal calls the gold reward."""


class RewardGroupSettings(WorkerGroupSettings):
    """The group of reward scorers; what it scores with is `model`, with those of `ensemble`, and all of `parts`."""

    unknown_key_advice = REWARDS_TODAY
    section: ClassVar[Literal["reward", "gold_reward"]] = "reward"
    """The settings' own key, for error messages."""

    model: ModelName | NewBertSettings | None
    ensemble: tuple[ModelName, ...] = ()
    """Further reward models: the score is the mean of all, less `uncertainty_penalty` times how far they disagree."""
    parts: tuple[RewardPart, ...] = ()
    """What is added to the score of `model`, each by its weight; or all there is, where there is no model."""
    uncertainty_penalty: PositiveOrZero = 0.0
    """Of the members' disagreement, their scores' standard deviation."""
    batch_size: BatchSize = 32
    """Responses in one forward. Changes memory and speed, never a score."""
    max_tokens: NumTokens = 256
    """Of prompt and response together, the reward model's own tokens."""
    normalize: bool = True
    """Use the calibration stored with the model: mean 0 and variance 1 under the policy that it was calibrated on."""

    @property
    def further_members(self) -> tuple[ModelReward, ...]:
        """The ensemble without `model`."""
        return tuple(self._member(name, "ensemble") for name in self.ensemble)

    @property
    def weighted_parts(self) -> tuple[WeightedPart, ...]:
        """Those of `parts`."""
        return tuple(
            WeightedPart(part.label, self._part_reward(part, number), part.weight, part.is_gate, part.columns)
            for number, part in enumerate(self.parts)
        )

    def _part_reward(self, part: RewardPart, number: int) -> Reward:
        if not isinstance(part, ModelPart):
            return part
        ref = ModelRef(part.model, f"{self.section}.parts.{number}.model")
        return ModelReward(ref, part.batch_size, part.max_tokens, part.normalize)

    def _member(self, name: str, key: str) -> ModelReward:
        return ModelReward(ModelRef(name, f"{self.section}.{key}"), self.batch_size, self.max_tokens, self.normalize)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [part.label for part in self.parts] + ([MODEL] if self.model is not None else [])
        twice = next((name for name in names if names.count(name) > 1 or name in RESERVED_NAMES), None)
        if twice is not None:
            raise ValueError(
                f"{self.section}.parts: the name {twice!r} is taken, by which the journal and the metrics know a part: "
                f"give each a `name` of its own"
            )
        if self.uncertainty_penalty and not self.ensemble:
            raise ValueError(
                f"{self.section}.uncertainty_penalty={self.uncertainty_penalty:g} is for reward models that disagree, "
                f"and there is one: give more as {self.section}.ensemble=[FOLDER, ...]"
            )
        if self.ensemble and not self.normalize:
            raise ValueError(
                f"{self.section}.ensemble with {self.section}.normalize=false: raw scores of different models have "
                f"different units and no mean; set {self.section}.normalize=true"
            )
        return self


class ScorerSettings(RewardGroupSettings):
    """Scorers with a trained reward model, or with parts of other kinds, or both."""

    model: ModelName | None = None
    """A reward model: a sequence-classification folder with one output. Beside `parts` it is the one called `model`."""

    @property
    def reward(self) -> Reward:
        if self.model is None:
            return CombinedReward(self.weighted_parts)
        first = self._member(self.model, MODEL)
        model = EnsembleReward((first, *self.further_members), self.uncertainty_penalty) if self.ensemble else first
        return CombinedReward((WeightedPart(MODEL, model, 1.0, False), *self.weighted_parts)) if self.parts else model

    def uncalibrated(self) -> Self:
        """The same for comparing responses alone, which raw scores of one model do; those of several have no mean."""
        return self if self.ensemble or self.parts else self.model_copy(update={"normalize": False})

    @model_validator(mode="after")
    def _check_given(self) -> Self:
        if self.model is None and not self.parts:
            raise ValueError(no_reward(self.section))
        if self.model is None and not any(part.weight for part in self.parts):
            raise ValueError(
                f"{self.section}.parts: the weight of every part is 0, so that every response is worth 0: give one a "
                f"weight, a gate too"
            )
        if self.model is None and self.ensemble:
            raise ValueError(
                f"{self.section}.ensemble has further reward models: give the first as {self.section}.model"
            )
        return self


class GoldRewardSettings(ScorerSettings):
    """Scorers of the gold reward, which nothing learns from: over-optimisation shows as it falls (arXiv 2210.10760)."""

    section = "gold_reward"


class PipelineScorerSettings(RewardGroupSettings):
    """In a pipeline, `model` is the encoder that becomes the reward model: made new, a folder or a hub name."""

    model: ModelName | NewBertSettings
    """One that there is, or the sizes of one to be made."""
    tuning: EncoderTuning = WholeEncoder()
    """What of the encoder is trained; its head always is."""
    quantization: Nf4Quantization | None = None
    """Keeps the encoder's weights, beside which LoRA stands, in fewer bits; None keeps them as they are."""

    def encoder_from(self, model: str | NewBertSettings) -> RewardEncoderSettings:
        """What becomes the reward model. `model`: the encoder, which an earlier stage may have made."""
        ways = {"tuning": self.tuning, "quantization": self.quantization}
        return RewardEncoderSettings(model=model, max_tokens=self.max_tokens, **ways)

    def trained(self, folder: str) -> ScorerSettings:
        """The scorers once the reward model is there."""
        return ScorerSettings(**self.model_dump(exclude={"model", "tuning", "quantization"}), model=folder)

    @model_validator(mode="after")
    def _check_tuning(self) -> Self:
        check_encoder_tuning(self.tuning, self.quantization, is_new=False)  # A new one is pre-trained first.
        return self

    @property
    def encoder(self) -> ModelRef | NewBertSettings:
        return ModelRef(self.model, REWARD_MODEL) if isinstance(self.model, str) else self.model
