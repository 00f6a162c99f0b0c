"""What an adapter makes of each weight that it is merged into, as PEFT's merge_and_unload does, in float32."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from plumbob.models.adapter import Adapter
from plumbob.rollout.publish_proof import PublishError
from plumbob.rollout.served_adapter import LoraPair, lora_pairs

_MAGNITUDE = ".lora_magnitude_vector"


@dataclass(frozen=True)
class WeightChange:
    """Of one module.

    Attributes:
        names: PEFT's saved names of the tensors that it is made of.
        apply: the base's weight [out, in], or [vocabulary, width] of an embedding -> the merged one, both float32.
    """

    names: tuple[str, ...]
    apply: Callable[[Tensor], Tensor]

    def merged(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The base's weight, changed in float32 and then rounded to `dtype`."""
        return self.apply(weight.float()).to(dtype)


def weight_changes(adapter: Adapter) -> dict[str, WeightChange]:
    """By the name that the module has in transformers' model.

    Raises:
        PublishError: a tensor is not what an adapter of its kind holds, or one is missing.
    """
    magnitudes = {name: tensor for name, tensor in adapter.tensors.items() if name.endswith(_MAGNITUDE)}
    pairs = lora_pairs(replace(adapter, tensors={k: v for k, v in adapter.tensors.items() if k not in magnitudes}))
    changes = {module: _of_pair(pair) for module, pair in pairs.items()}
    for name, magnitude in magnitudes.items():
        module = name.removesuffix(_MAGNITUDE).removeprefix("base_model.model.")
        if module not in pairs:
            raise PublishError(f"version {adapter.version}: {name} was sent without its A and B")
        changes[module] = _of_dora(pairs[module], name, magnitude)
    return changes


def _of_pair(pair: LoraPair) -> WeightChange:
    """W + scaling B A (arXiv 2106.09685)."""
    return WeightChange((pair.a_name, pair.b_name), lambda weight: weight + _update(pair, weight))


def _of_dora(pair: LoraPair, name: str, magnitude: Tensor) -> WeightChange:
    """m V / |V| with V = W + scaling B A, whose length is taken over each output's weights (arXiv 2402.09353).

    Of an embedding an output is one number of its width, whose weights are those of all tokens.
    """

    def apply(weight: Tensor) -> Tensor:
        direction = weight + _update(pair, weight)
        lengths = torch.linalg.norm(direction, dim=0 if pair.is_embedding else 1)
        if lengths.shape != magnitude.shape:
            raise PublishError(f"{name} is {list(magnitude.shape)} on a weight with {len(lengths)} outputs")
        factors = magnitude.float() / lengths
        return direction * (factors if pair.is_embedding else factors[:, None])

    return WeightChange((pair.a_name, pair.b_name, name), apply)


def _update(pair: LoraPair, weight: Tensor) -> Tensor:
    """What a pair adds to a weight. Raises PublishError when it is of another size."""
    update = pair.scaling * (pair.b.float() @ pair.a.float())
    update = update.T if pair.is_embedding else update
    if update.shape != weight.shape:
        raise PublishError(f"{pair.b_name}: B A is {list(update.shape)} on a weight that is {list(weight.shape)}")
    return update


def by_tensor(changes: Mapping[str, WeightChange], found: Mapping[str, float]) -> dict[str, float]:
    """PEFT's saved name of each tensor -> the largest difference in the modules that it is part of.

    Args:
        found: module -> the difference in it. NaN counts as larger than all.
    """
    largest: dict[str, float] = {}
    for module, change in changes.items():
        for name in change.names:
            largest[name] = float(np.maximum(largest.get(name, 0.0), found[module]))
    return largest
