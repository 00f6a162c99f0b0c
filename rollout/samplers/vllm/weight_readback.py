"""Reads weights back from inside vLLM: what its layers compute with, in whichever form they keep it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plumbob.rollout.publish_proof import PublishError, max_difference

BLOCK = 512
"""Columns of a weight that are read with one product."""


def loaded_with(model: Any, name: str) -> tuple[str, ...]:
    """The parameters of transformers' model that vLLM's `model` can only load together with `name`, itself among them.

    These are the weights that it keeps as one tensor, in their order there; with a bias also those of its layer, which
    would be left empty, and the biases that it keeps with it.
    """
    module, _, kind = name.rpartition(".")
    parts = _place(model, module)[1]
    weights = tuple(f"{part}.weight" for part in parts)
    return weights if kind == "weight" else (*weights, *(f"{part}.{kind}" for part in parts))


def compare_weights(model: Any, names: Iterable[str], expected: Callable[[str], Tensor]) -> dict[str, float]:
    """What an engine on one device holds, against what it should hold.

    Args:
        model: vLLM's.
        names: parameters of transformers' model; all that are kept as one tensor with one of them are compared too.
        expected: name -> a weight [out, in] or what is no matrix, in the engine's dtype; asked for one after another.

    Returns:
        The largest difference of each.

    Raises:
        PublishError: the engine has no such parameter, or its layout is not known.
    """
    layers, heads = dict(model.named_modules()), tied_heads(model)
    differences: dict[str, float] = {}
    for name in names:
        if name in differences:
            continue
        module, _, kind = name.rpartition(".")
        place, parts = _place(model, module)
        layer = layers.get(place)
        if layer is None or getattr(layer, kind, None) is None:
            raise PublishError(f"the engine has no {kind} of {place}, where {name} should be")
        wanted = [expected(f"{part}.{kind}") for part in parts]
        # An embedding's weight may be that of the head too, which multiplies with a form of its own.
        holders = [layer, *(head for head in heads if head.weight is layer.weight)]
        read = [_differences(_columns(holder, kind, wanted[0]), place, wanted) for holder in holders]
        differences |= {
            f"{part}.{kind}": float(np.max(of_part))
            for part, of_part in zip(parts, zip(*read, strict=True), strict=True)
        }
    return differences


def tied_heads(model: Any) -> list[Any]:
    """Output heads of vLLM's model whose weight is the embeddings'."""
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    looked_up = [module for module in model.modules() if _looks_up(module)]
    heads = [module for module in model.modules() if isinstance(module, ParallelLMHead)]
    return [head for head in heads if any(head.weight is embedding.weight for embedding in looked_up)]


def _differences(columns: Iterator[tuple[int, Tensor]], place: str, weights: Sequence[Tensor]) -> list[float]:
    """Of each of the weights, which a layer holds as one tensor, in this order.

    Args:
        columns: of that tensor.
    """
    first_rows = [0, *accumulate(map(len, weights))]
    found_so_far: list[list[float]] = [[] for _ in weights]
    for start, found in columns:
        if len(found) < first_rows[-1]:
            raise PublishError(f"{place} has a layout that cannot be read back")
        # What lies after the last part is padding, which has to be zero.
        ends = [*first_rows[1:-1], len(found)]
        for part, (first, end) in enumerate(zip(first_rows[:-1], ends, strict=True)):
            wanted = weights[part].reshape(len(weights[part]), -1)[:, start : start + found.shape[1]]
            found_so_far[part].append(_difference(wanted.to(found.device), found[first:end]))
    # NaN counts as larger than all.
    return [float(np.max(of_part)) for of_part in found_so_far]


def _place(model: Any, module: str) -> tuple[str, list[str]]:
    """The name of vLLM's module that holds what `module` has, and all whose it holds."""
    parent, _, own = module.rpartition(".")
    packed = getattr(model, "packed_modules_mapping", None) or {}
    for name, parts in packed.items():
        if own in parts:
            return f"{parent}.{name}", [f"{parent}.{part}" for part in parts]
    return module, [module]


def _looks_up(layer: Any) -> bool:
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

    return isinstance(layer, VocabParallelEmbedding) and not isinstance(layer, ParallelLMHead)


def _columns(layer: Any, kind: str, like: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first column, [out, columns]) of the weight or bias that a layer computes with; a vector is one column.

    vLLM's CPU build packs weights for its kernels and drops its own copy. A product of such a kernel with a unit vector
    is a column of the weight, to the bit: all other terms are zero. Of some layers it keeps the bias in float32.

    Args:
        like: what it should be, or a part of that.
    """
    if like.dim() == 1:
        vector = _bias(layer) if kind == "bias" else getattr(layer, kind).detach()
        yield 0, vector.to(like.dtype)[:, None]
        return
    if _looks_up(layer) or not hasattr(layer, "cpu_linear"):
        yield 0, layer.weight.detach()
        return
    width = like.shape[1]
    for start in range(0, width, BLOCK):
        unit = torch.zeros(min(BLOCK, width - start), width, dtype=layer.weight.dtype)
        unit[:, start : start + len(unit)].fill_diagonal_(1)
        yield start, layer.quant_method.apply(layer, unit, None).T


def _bias(layer: Any) -> Tensor:
    """What a layer adds: a kernel of vLLM's CPU build may keep its own copy, which is what it gives for an input of
    zeros."""
    if not hasattr(layer, "cpu_linear"):
        bias: Tensor = layer.bias.detach()
        return bias
    width = getattr(layer, "input_size_per_partition", None) or layer.input_size
    added: Tensor = layer.quant_method.apply(layer, torch.zeros(1, width, dtype=layer.bias.dtype), layer.bias)
    return added[0]


def _difference(expected: Tensor, found: Tensor) -> float:
    """As `max_difference`. What is too small for a normal float32 counts as zero: so it may in products."""
    if torch.equal(expected, found):
        return 0.0
    smallest = torch.finfo(torch.float32).tiny
    expected, found = (torch.where(each.abs() < smallest, 0, each) for each in (expected, found))
    return max_difference(expected, found)
