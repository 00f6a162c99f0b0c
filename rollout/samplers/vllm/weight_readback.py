"""Reads weights back from inside vLLM: what its layers multiply with, in whichever form they keep it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from plumbob.rollout.publish_proof import PublishError, max_difference

BLOCK = 512
"""Columns of a weight that are read with one product."""


def packed_with(model: Any, module: str) -> list[str]:
    """The modules of transformers' model whose weights vLLM's `model` keeps as one tensor with `module`'s, itself among
    them, in their order there."""
    return _place(model, module)[1]


def compare_weights(model: Any, modules: Iterable[str], expected: Callable[[str], Tensor]) -> dict[str, float]:
    """What an engine on one device holds, against what it should hold.

    Args:
        model: vLLM's.
        modules: of transformers' model; all that are packed with one of them are compared too.
        expected: module -> its weight [out, in], in the engine's dtype; asked for one after another.

    Returns:
        The largest difference of each.

    Raises:
        PublishError: the engine has no such module, or its layout is not known.
    """
    differences: dict[str, float] = {}
    for module in modules:
        if module in differences:
            continue
        place, parts = _place(model, module)
        layer = dict(model.named_modules()).get(place)
        if layer is None:
            raise PublishError(f"the engine has no module {place}, where {module} should be")
        weights = [expected(part) for part in parts]
        differences |= dict(zip(parts, _differences(layer, place, weights), strict=True))
    return differences


def compare_biases(model: Any, modules: Iterable[str], expected: Callable[[str], Tensor]) -> dict[str, float]:
    """As `compare_weights`, of the biases [out] of modules that have one, as have all that are packed with them."""
    differences: dict[str, float] = {}
    layers = dict(model.named_modules())
    for module in modules:
        if module in differences:
            continue
        place, parts = _place(model, module)
        wanted = [expected(part) for part in parts]
        found = _bias(layers[place])
        ends = [*accumulate(map(len, wanted))]
        if len(found) < ends[-1]:
            raise PublishError(f"{place} ({type(layers[place]).__name__}) has a layout that cannot be read back")
        for part, bias, first, end in zip(parts, wanted, [0, *ends], [*ends[:-1], len(found)], strict=False):
            differences[part] = _difference(bias.to(found.device), found[first:end])
    return differences


def _bias(layer: Any) -> Tensor:
    """What a layer adds: a kernel of vLLM's CPU build may keep its own copy, which is what it gives for an input of
    zeros."""
    if not hasattr(layer, "cpu_linear"):
        bias: Tensor = layer.bias.detach()
        return bias
    width = getattr(layer, "input_size_per_partition", None) or layer.input_size
    added: Tensor = layer.quant_method.apply(layer, torch.zeros(1, width, dtype=layer.bias.dtype), layer.bias)
    return added[0]


def _differences(layer: Any, place: str, weights: Sequence[Tensor]) -> list[float]:
    """Of each of the weights, which the layer holds as one tensor, in this order."""
    first_rows = [0, *accumulate(map(len, weights))]
    largest = [0.0] * len(weights)
    for start, found in _columns(layer, weights[0].shape[1]):
        if len(found) < first_rows[-1]:
            raise PublishError(f"{place} ({type(layer).__name__}) has a layout that cannot be read back")
        # What lies after the last part is padding, which has to be zero.
        ends = [*first_rows[1:-1], len(found)]
        for part, (first, end) in enumerate(zip(first_rows[:-1], ends, strict=True)):
            wanted = weights[part][:, start : start + found.shape[1]].to(found.device)
            difference = _difference(wanted, found[first:end])
            # Written so that NaN stays.
            largest[part] = largest[part] if difference <= largest[part] else difference
    return largest


def _place(model: Any, module: str) -> tuple[str, list[str]]:
    """The name of vLLM's module that holds the weight of `module`, and all that it holds."""
    parent, _, own = module.rpartition(".")
    packed = getattr(model, "packed_modules_mapping", None) or {}
    for name, parts in packed.items():
        if own in parts:
            return f"{parent}.{name}", [f"{parent}.{part}" for part in parts]
    return module, [module]


def _columns(layer: Any, width: int) -> Iterator[tuple[int, Tensor]]:
    """(first column, [out, columns]) of the weight that a layer computes with.

    vLLM's CPU build packs weights for its kernels and drops its own copy. A product of such a kernel with a unit vector
    is a column of the weight, to the bit: all other terms are zero.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

    looks_up = isinstance(layer, VocabParallelEmbedding) and not isinstance(layer, ParallelLMHead)
    if looks_up or not hasattr(layer, "cpu_linear"):
        yield 0, layer.weight.detach()
        return
    for start in range(0, width, BLOCK):
        unit = torch.zeros(min(BLOCK, width - start), width, dtype=layer.weight.dtype)
        unit[:, start : start + len(unit)].fill_diagonal_(1)
        yield start, layer.quant_method.apply(layer, unit, None).T


def _difference(expected: Tensor, found: Tensor) -> float:
    """As `max_difference`. What is too small for a normal float32 counts as zero: so it may in products."""
    if torch.equal(expected, found):
        return 0.0
    smallest = torch.finfo(torch.float32).tiny
    expected, found = (torch.where(each.abs() < smallest, 0, each) for each in (expected, found))
    return max_difference(expected, found)
