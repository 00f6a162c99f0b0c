"""From the settings of frozen weights to what loads them, and what makes floats of them; each form has a file.

These are imported where a model is loaded: bitsandbytes takes seconds, and the driver only checks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from logging import ERROR, getLogger
from typing import Any, Self, assert_never

import torch

from plumbob.configs.base import Dtype
from plumbob.configs.settings.tuning.quantization import Nf4Quantization


def loading_options(quantization: Nf4Quantization | None, dtype: torch.dtype) -> dict[str, Any]:
    """Of transformers' `from_pretrained`. `dtype`: of the weights that stay as they are."""
    match quantization:
        case None:
            return {}
        case Nf4Quantization():
            hush_bitsandbytes()
            from plumbob.models.quantization.nf4 import Nf4Config

            return {"quantization_config": Nf4Config(quantization, dtype)}
        case _:
            assert_never(quantization)


WEIGHTS_DTYPE = "weights_dtype"
"""Beside the settings of a quantization, where it is written how an adapter's base was kept: what was quantised."""


@dataclass(frozen=True)
class KeptBits:
    """How the base of an adapter was kept while that was trained: `dtype` is what its weights were before."""

    quantization: Nf4Quantization
    dtype: Dtype = "float32"

    @classmethod
    def of(cls, known: Mapping[str, Any]) -> Self:
        """`known`: the settings, with `WEIGHTS_DTYPE` among them where that is known; empty takes the defaults."""
        settings = dict(known)
        dtype = settings.pop(WEIGHTS_DTYPE, "float32")
        return cls(Nf4Quantization(**settings), dtype)


def round_weights(model: Any, quantization: Nf4Quantization) -> None:
    """Give a plain model the floats that it computes with when it is loaded in few bits."""
    hush_bitsandbytes()
    from plumbob.models.quantization import nf4

    nf4.round_weights(model, quantization)


def hush_bitsandbytes() -> None:
    """It warns, when imported, by PEFT too, that a kernel for evaluation on CPUs is not there, which is not used."""
    getLogger("bitsandbytes.backends.cpu.ops").setLevel(ERROR)
