"""Frozen weights of few bits, on which adapters are trained (QLoRA)."""

from typing import Literal

from plumbob.configs.base import Dtype, Settings
from plumbob.configs.settings.tuning.adapters import AdapterTuning

BITS_OF_A_SCALE, BITS_OF_A_SMALL_SCALE, SCALES_OF_A_SCALE = 32, 8, 256


class Nf4Quantization(Settings):
    """4-bit NormalFloat (Dettmers et al. 2023, arXiv 2305.14314): 16 quantiles of a normal distribution, and a scale
    for each block of weights."""

    kind: Literal["nf4"] = "nf4"
    double_quantization: bool = True
    """Keep the scales in 8 bits too, which saves 0.37 bits of 4.5 a weight."""
    block_size: Literal[32, 64, 128, 256, 512, 1024, 2048, 4096] = 64
    """Weights that share a scale."""
    compute_dtype: Dtype | None = None
    """What weights are multiplied in, once they are floats again; None is `policy.dtype`."""

    @property
    def bits_per_weight(self) -> float:
        """4, and a weight's share of its block's scale."""
        if not self.double_quantization:
            return 4 + BITS_OF_A_SCALE / self.block_size
        scale = BITS_OF_A_SMALL_SCALE + BITS_OF_A_SCALE / SCALES_OF_A_SCALE
        return 4 + scale / self.block_size


def check_is_frozen(quantization: Nf4Quantization | None, tuning: Settings, setting: str = "policy.tuning") -> None:
    """Raises ValueError when weights of few bits were to be trained, or to be known in all of theirs.

    Args:
        setting: the one that the tuning is.
    """
    if quantization is not None and not isinstance(tuning, AdapterTuning):
        kind = type(tuning).model_fields["kind"].default
        raise ValueError(
            f"policy.quantization.kind={quantization.kind} keeps the policy's weights frozen in 4 bits, and "
            f"{setting}.kind={kind} trains them: set {setting}.kind=lora, or leave policy.quantization out"
        )
    if quantization is not None and isinstance(tuning, AdapterTuning) and tuning.reads_weights:
        raise ValueError(
            f"policy.quantization.kind={quantization.kind} is for LoRA that begins at random, AdaLoRA, bottleneck "
            f"adapters and soft prompts: all else reads the weights' own numbers, of which it keeps 4 bits; set "
            f"{setting}.kind=lora, use_dora=false and init=default, or leave policy.quantization out"
        )
