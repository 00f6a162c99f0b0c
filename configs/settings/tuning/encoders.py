"""What of an encoder a reward model is trained of (`EncoderTuning`): all of it, or LoRA and the head."""

from typing import Annotated, Literal

from pydantic import Field

from plumbob.configs.base import Fraction, Positive, Settings
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
