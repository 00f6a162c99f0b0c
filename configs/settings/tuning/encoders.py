"""The encoder of a stage that trains it: which it is, and what of it is trained (`EncoderTuning`)."""

from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from plumbob.configs.base import Fraction, ModelName, NumTokens, Positive, Settings
from plumbob.configs.settings.models import REWARD_MODEL, ModelRef, NewBertSettings
from plumbob.configs.settings.tuning.adapters import LoraRank
from plumbob.configs.settings.tuning.quantization import Nf4Quantization


class WholeEncoder(Settings):
    """Every weight."""

    kind: Literal["full"] = "full"


class EncoderLora(Settings):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) on the encoder's linear layers, and its head whole. What is
    written is a plain reward model, in whose weights they are merged."""

    kind: Literal["lora"] = "lora"
    rank: LoraRank = 8
    """Width of the adapters."""
    alpha: Positive = 16.0
    """The adapters are scaled by alpha / rank."""
    dropout: Fraction = 0.0
    """Of the adapters' input."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Which layers of the encoder get an adapter: all linear ones, or those of these names."""


EncoderTuning = Annotated[WholeEncoder | EncoderLora, Field(discriminator="kind")]


def check_encoder_tuning(
    tuning: WholeEncoder | EncoderLora, quantization: Nf4Quantization | None, is_new: bool
) -> None:
    """Raises ValueError when weights were to be trained that are kept in 4 bits, or to be frozen that know nothing.

    Args:
        is_new: whether the encoder is yet to be made.
    """
    if quantization is not None and isinstance(tuning, WholeEncoder):
        raise ValueError(
            f"reward.quantization.kind={quantization.kind} keeps the encoder's weights frozen in 4 bits, and "
            f"reward.tuning.kind=full trains them: set reward.tuning.kind=lora, or leave reward.quantization out"
        )
    if is_new and isinstance(tuning, EncoderLora):
        raise ValueError(
            "reward.tuning.kind=lora keeps the encoder's weights as they are, and a new encoder's are random: give "
            "reward.model=FOLDER, or set reward.tuning.kind=full"
        )


class EncoderSettings(Settings):
    """The BERT of a stage that trains it: made new, a folder or a hub name."""

    model: ModelName | NewBertSettings
    """One that there is, or the sizes of one to be made."""

    @property
    def encoder(self) -> ModelRef | NewBertSettings:
        return ModelRef(self.model, REWARD_MODEL) if isinstance(self.model, str) else self.model

    @property
    def existing_encoder(self) -> ModelRef:
        """Once there is an encoder, made or named."""
        assert isinstance(self.encoder, ModelRef), f"{REWARD_MODEL} has not been made yet"
        return self.encoder


class RewardEncoderSettings(EncoderSettings):
    max_tokens: NumTokens = 256
    """Of prompt and response together, the reward model's own tokens."""
    tuning: EncoderTuning = WholeEncoder()
    """What of the encoder is trained; its head always is."""
    quantization: Nf4Quantization | None = None
    """Keeps the encoder's weights, beside which LoRA stands, in fewer bits; None keeps them as they are."""

    @property
    def existing_encoder(self) -> ModelRef:
        return replace(super().existing_encoder, quantization=self.quantization)

    @model_validator(mode="after")
    def _check_tuning(self) -> Self:
        check_encoder_tuning(self.tuning, self.quantization, isinstance(self.model, NewBertSettings))
        return self
