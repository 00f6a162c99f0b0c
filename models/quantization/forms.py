"""From the settings of frozen weights to what loads them, and what makes floats of them; each form has a file.

These are imported where a model is loaded: bitsandbytes takes seconds, and the driver only checks.
"""

from logging import ERROR, getLogger
from typing import Any, assert_never

import torch

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


def round_weights(model: Any, quantization: Nf4Quantization) -> None:
    """Give a plain model the floats that it computes with when it is loaded in few bits."""
    hush_bitsandbytes()
    from plumbob.models.quantization import nf4

    nf4.round_weights(model, quantization)


def hush_bitsandbytes() -> None:
    """It warns, when imported, by PEFT too, that a kernel for evaluation on CPUs is not there, which is not used."""
    getLogger("bitsandbytes.backends.cpu.ops").setLevel(ERROR)
