"""Reads an adapter back from inside vLLM: the stacked tensors that its layers multiply with."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from plumbob.rollout.publish_proof import PublishError, max_difference


def compare_slot(
    manager: Any, lora_id: int, expected: Mapping[str, Tensor], saved_names: Mapping[tuple[str, bool], str]
) -> dict[str, float]:
    """What the slot of `lora_id` holds, against what it should hold, in one tensor-parallel rank.

    Args:
        manager: vLLM's LoRAModelManager, which gives ids to slots and knows every layer that takes adapters.
        lora_id: the id that requests name.
        expected: PEFT's saved name -> tensor, rounded and scaled as it is to be served.
        saved_names: (vLLM's name of a module, is it A) -> PEFT's saved name. Parts of a packed layer count one by one.

    Returns:
        The largest difference of each tensor that has a slot, and the largest element of each slot to which nothing
        was sent.

    Raises:
        PublishError: the id has no slot, or a layer's layout is not known.
    """
    if lora_id not in manager.lora_index_to_id:
        raise PublishError(f"the engine has no active adapter of id {lora_id}: it holds {manager.lora_index_to_id}")
    slot = manager.lora_index_to_id.index(lora_id)
    differences: dict[str, float] = {}
    for module_name, layer in manager.modules.items():
        parts = manager.packed_modules.get(module_name, [module_name])
        for is_a in (True, False):
            found = _slot_tensors(layer, slot, is_a)
            if len(found) != len(parts):
                raise PublishError(f"{module_name} ({type(layer).__name__}) has a layout that cannot be read back")
            names = [saved_names.get((part, is_a)) for part in parts]
            shards = _shards(layer, [None if name is None else expected[name] for name in names], is_a)
            for part, name, shard, tensor in zip(parts, names, shards, found, strict=True):
                wanted = tensor.new_zeros((0, 0)) if shard is None else shard.to(tensor.device)
                key = name or f"{part}.lora_{'A' if is_a else 'B'} (nothing was sent)"
                differences[key] = max_difference(wanted, tensor)
    return differences


def _slot_tensors(layer: Any, slot: int, is_a: bool) -> list[Tensor]:
    """What a layer holds in one slot: A as [rank, in], B as [out, rank], one of each per packed part."""
    stacked = layer.lora_a_stacked if is_a else layer.lora_b_stacked
    if isinstance(stacked, tuple):
        return [part[slot, 0] for part in stacked]
    # An embedding keeps its A transposed, and without the dimension of size 1.
    return [stacked[slot].T if stacked.dim() == 3 else stacked[slot, 0]]


def _shards(layer: Any, tensors: list[Tensor | None], is_a: bool) -> list[Tensor | None]:
    """The share of this tensor-parallel rank."""
    if getattr(layer, "tp_size", 1) == 1:
        return tensors
    cut = layer.slice_lora_a if is_a else layer.slice_lora_b
    if len(tensors) > 1:
        return list(cut(tensors))
    return [None if tensors[0] is None else cut(tensors[0])]
