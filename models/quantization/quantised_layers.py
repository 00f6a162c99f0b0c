"""Which of a model's weights are quantised: of linear layers but the head, those whose rows are of whole blocks."""

from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from plumbob.configs.settings.tuning.quantization import Nf4Quantization


def quantised_layers(model: Any, settings: Nf4Quantization) -> dict[str, nn.Module]:
    """Name -> layer, of a transformers model that is not quantised; it may be one without weights.

    A block that goes over the end of a row, bitsandbytes' kernel for CPUs gives wrong numbers for.
    """
    kept = names_kept(model, settings)
    return {name: layer for name, layer in _linear_layers(model).items() if should_convert_module(name, kept)}


def names_kept(model: Any, settings: Nf4Quantization) -> list[str]:
    """Of the modules whose weights stay floats, as transformers takes them: by their beginnings, ends and patterns."""
    of_heads = (name for name in _linear_layers(model) if is_of_head(model, name))
    by_default = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    uneven = (name for name, layer in _linear_layers(model).items() if out_by_in(layer).shape[1] % settings.block_size)
    return [*by_default, *of_heads, *uneven]


def is_of_head(model: Any, name: str) -> bool:
    """Whether a module or a parameter of a transformers model is of its head: outside of the model that the head
    stands on, or of that one's pooler, which is part of a classifier."""
    return not name.startswith(f"{model.base_model_prefix}.") or "pooler" in name.split(".")


def _linear_layers(model: Any) -> dict[str, nn.Module]:
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear or isinstance(module, Conv1D)
    }


def out_by_in(layer: Any) -> Tensor:
    """A layer's weight as [out, in], the same memory; GPT-2's layers keep it the other way."""
    weight: Tensor = layer.weight.detach()
    return weight.T if isinstance(layer, Conv1D) else weight


def base_bytes(model: Any, weight_bytes: int, quantization: Nf4Quantization | None) -> int:
    """What all weights of such a model take. `weight_bytes`: of one that is not quantised."""
    whole = weight_bytes * sum(parameter.numel() for parameter in model.parameters())
    if quantization is None:
        return whole
    num_quantised = sum(out_by_in(layer).numel() for layer in quantised_layers(model, quantization).values())
    return whole - int((weight_bytes - quantization.bits_per_weight / 8) * num_quantised)
