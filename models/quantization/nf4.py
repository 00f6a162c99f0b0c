"""4-bit NormalFloat by bitsandbytes (QLoRA, Dettmers et al. 2023, arXiv 2305.14314): how it is loaded, and as floats.

A block of weights w has the scale c = max |w|, and of each weight the index of the nearest c q_i is kept, where q are
16 quantiles of a normal distribution in [-1, 1]. In double quantization the scales are kept in 8 bits alike.
"""

from typing import Any

import torch
from bitsandbytes.functional import QuantState, dequantize_4bit, quantize_4bit
from bitsandbytes.nn import Linear4bit
from torch import Tensor, nn
from transformers import BitsAndBytesConfig
from transformers.quantizers import register_quantizer
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

from plumbob.configs.settings.tuning.quantization import Nf4Quantization
from plumbob.models.quantization.quantised_layers import names_kept, out_by_in, quantised_layers

QUANTIZER = "nf4-in-blocks"


class Nf4Config(BitsAndBytesConfig):
    """What transformers' `from_pretrained` takes as `quantization_config`. `dtype`: of the weights that stay."""

    def __init__(self, settings: Nf4Quantization, dtype: torch.dtype) -> None:
        super().__init__(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=settings.double_quantization,
            bnb_4bit_compute_dtype=dtype if settings.compute_dtype is None else settings.compute_dtype,
        )
        self.quant_method = QUANTIZER
        self.settings = settings


@register_quantizer(QUANTIZER)
class Nf4Quantizer(Bnb4BitHfQuantizer):
    """transformers' own, with a block size, on the CPU, and with one arithmetic in training and in evaluation."""

    def update_device_map(self, device_map: Any) -> Any:
        """Left open: an engine moves the model, and a sampler's host quantises to the same bits without a GPU."""
        return device_map

    def _process_model_before_weight_loading(self, model: Any, device_map: Any, **options: Any) -> None:
        settings = self.quantization_config.settings
        self.quantization_config.llm_int8_skip_modules = names_kept(model, settings)
        super()._process_model_before_weight_loading(model, device_map, **options)
        layers = layers_of_4_bits(model)
        if not layers:
            raise ValueError(f"none of its linear layers has rows of whole blocks of {settings.block_size} weights")
        for layer in layers:
            layer.weight.blocksize = settings.block_size
            # Evaluation on a CPU with bfloat16 products would pack the weights for these: log-probs in bfloat16, and
            # from then on no gradients through the layer.
            layer.support_avx512bf16_for_cpu = False


def layers_of_4_bits(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, Linear4bit)]


def quantize(weight: Tensor, settings: Nf4Quantization) -> tuple[Tensor, QuantState]:
    """Of [out, in]: what a layer keeps of it, as it is kept when a model is loaded."""
    packed, state = quantize_4bit(
        weight.contiguous(),
        blocksize=settings.block_size,
        compress_statistics=settings.double_quantization,
        quant_type="nf4",
    )
    return packed, state


def num_bytes(packed: Tensor, state: QuantState) -> int:
    """Of what is kept of one weight, without the tables that all weights share."""
    kept = [packed, state.absmax] + ([state.state2.absmax, state.offset] if state.nested else [])
    return sum(tensor.numel() * tensor.element_size() for tensor in kept)


def rounded(weight: Tensor, settings: Nf4Quantization) -> Tensor:
    """[out, in] -> the floats that a layer computes with, in the weight's dtype."""
    return dequantize_4bit(*quantize(weight, settings))


@torch.no_grad()
def round_weights(model: Any, settings: Nf4Quantization) -> None:
    """Give a plain model the floats that it computes with when it is loaded in 4 bits; one layer at a time."""
    for layer in quantised_layers(model, settings).values():
        weight = out_by_in(layer)
        weight.copy_(rounded(weight, settings))
