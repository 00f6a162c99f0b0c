"""Methods that train low-rank adapters of PEFT's beside the model's weights."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from plumbob.configs.base import Fraction, Positive, Settings

LoraRank = Annotated[int, Field(gt=0, le=65_536)]


class AdapterTuning(Settings):
    """What is trained is an adapter of PEFT's."""

    peft_type: ClassVar[str]
    """What PEFT calls adapters of this kind."""


class LoraTuning(AdapterTuning):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685)."""

    peft_type = "LORA"

    kind: Literal["lora"] = "lora"
    rank: LoraRank = 8
    """Width of the adapters."""
    alpha: Positive = 16.0
    """The adapters are scaled by alpha / rank."""
    dropout: Fraction = 0.0
    """Of the adapters' input; for supervised fine-tuning alone."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Which modules get an adapter: all linear ones but the head, or those of these names."""
