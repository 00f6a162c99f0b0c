"""What responses are rewarded by, and how large the group of its scorers is."""

from typing import Self

from pydantic import NonNegativeFloat, PositiveInt, model_validator

from plumbob.configs.base import ModelName, Settings
from plumbob.configs.settings.models import REWARD_MODEL, ModelRef, NewBertSettings
from plumbob.configs.settings.workers import WorkerGroupSettings


class ScorerSettings(WorkerGroupSettings):
    """The group of reward scorers. `model` is a sequence-classification folder with one output."""

    model: ModelName
    ensemble: tuple[ModelName, ...] = ()
    """Further reward models: the score is the mean of all, less `uncertainty_penalty` times how far they disagree."""
    uncertainty_penalty: NonNegativeFloat = 0.0
    batch_size: PositiveInt = 32
    max_tokens: PositiveInt = 256
    normalize: bool = True
    """Use the calibration stored with the model: mean 0 and variance 1 under the policy that it was calibrated on."""

    def refs(self, section: str = "reward") -> tuple[ModelRef, ...]:
        """Every model that scores, the first one's own setting first. `section` is the one that these settings are."""
        return (ModelRef(self.model, f"{section}.model"), *self.further_refs(section))

    def further_refs(self, section: str = "reward") -> tuple[ModelRef, ...]:
        """Of the ensemble beside the first model."""
        return tuple(ModelRef(name, f"{section}.ensemble") for name in self.ensemble)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.uncertainty_penalty and not self.ensemble:
            raise ValueError(
                f"reward.uncertainty_penalty={self.uncertainty_penalty:g} is for reward models that disagree, and "
                f"there is one: give more as reward.ensemble=[FOLDER, ...]"
            )
        if self.ensemble and not self.normalize:
            raise ValueError(
                "reward.ensemble with reward.normalize=false: raw scores of different models have different units and "
                "no mean; set reward.normalize=true"
            )
        return self


class PipelineScorerSettings(ScorerSettings):
    """In a pipeline, `model` is the encoder that becomes the reward model: made new, a folder or a hub name."""

    model: ModelName | NewBertSettings  # type: ignore[assignment]

    @property
    def encoder(self) -> ModelRef | NewBertSettings:
        return ModelRef(self.model, REWARD_MODEL) if isinstance(self.model, str) else self.model


class EncoderSettings(Settings):
    """The BERT of a stage that trains it: made new, a folder or a hub name."""

    model: ModelName | NewBertSettings

    @property
    def encoder(self) -> ModelRef | NewBertSettings:
        return ModelRef(self.model, REWARD_MODEL) if isinstance(self.model, str) else self.model

    @property
    def made_encoder(self) -> ModelRef:
        """Once there is an encoder, made or named."""
        assert isinstance(self.encoder, ModelRef), f"{REWARD_MODEL} has not been made yet"
        return self.encoder


class RewardEncoderSettings(EncoderSettings):
    max_tokens: PositiveInt = 256
