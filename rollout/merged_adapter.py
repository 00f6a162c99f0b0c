"""What an adapter makes of each weight that it is merged into, as PEFT's merge_and_unload does, in float32."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from plumbob.models.adapter import SAVED_PREFIX, Adapter
from plumbob.rollout.publish_proof import PublishError
from plumbob.rollout.served_adapter import LoraPair, lora_pairs

_MAGNITUDE, _VERA_B, _VERA_D = ".lora_magnitude_vector", ".vera_lambda_b", ".vera_lambda_d"

VERA_SHARED = ("base_model.vera_A", "base_model.vera_B")
"""PEFT's saved names of the matrices A [r, in] and B [out, r] that all modules have in common."""


@dataclass(frozen=True)
class WeightChange:
    """Of one module.

    Attributes:
        names: PEFT's saved names of the tensors that it is made of.
        apply: the base's weight [out, in], or [vocabulary, width] of an embedding -> the merged one, both float32.
        apply_to_bias: the same of the base's bias [out], where that is changed too.
    """

    names: tuple[str, ...]
    apply: Callable[[Tensor], Tensor]
    apply_to_bias: Callable[[Tensor], Tensor] | None = None

    def merged(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The base's weight, changed in float32 and then rounded to `dtype`."""
        return self.apply(weight.float()).to(dtype)

    def merged_bias(self, bias: Tensor, dtype: torch.dtype) -> Tensor:
        """As `merged`, of the base's bias."""
        return bias if self.apply_to_bias is None else self.apply_to_bias(bias.float()).to(dtype)


def weight_changes(adapter: Adapter) -> dict[str, WeightChange]:
    """By the name that the module has in transformers' model.

    Raises:
        PublishError: a tensor is not what an adapter of its kind holds, or one is missing.
    """
    match adapter.config.get("peft_type", "LORA"):
        case "LORA":
            return _of_lora(adapter)
        case "IA3":
            return _of_ia3(adapter)
        case "VERA":
            return _of_vera(adapter)
        case kind:
            raise PublishError(f"version {adapter.version}: an adapter of peft_type {kind} cannot be merged")


def _of_lora(adapter: Adapter) -> dict[str, WeightChange]:
    magnitudes = {name: tensor for name, tensor in adapter.tensors.items() if name.endswith(_MAGNITUDE)}
    pairs = lora_pairs(replace(adapter, tensors={k: v for k, v in adapter.tensors.items() if k not in magnitudes}))
    changes = {module: _of_pair(pair) for module, pair in pairs.items()}
    for name, magnitude in magnitudes.items():
        module = name.removesuffix(_MAGNITUDE).removeprefix(SAVED_PREFIX)
        if module not in pairs:
            raise PublishError(f"version {adapter.version}: {name} was sent without its A and B")
        changes[module] = _of_dora(pairs[module], name, magnitude)
    return changes


def _of_ia3(adapter: Adapter) -> dict[str, WeightChange]:
    """W with each output, or each input, scaled (arXiv 2205.05638): by l [out, 1], or by l [1, in]."""
    changes: dict[str, WeightChange] = {}
    for name, factors in adapter.tensors.items():
        module, dot, rest = name.removeprefix(SAVED_PREFIX).rpartition(".ia3_l")
        if not dot or rest:
            raise PublishError(f"version {adapter.version}: {name} is not a tensor of (IA)³ and cannot be served")
        changes[module] = _scaled(name, factors)
    return changes


def _scaled(name: str, factors: Tensor) -> WeightChange:
    def apply(weight: Tensor) -> Tensor:
        if factors.shape not in ((weight.shape[0], 1), (1, weight.shape[1])):
            raise PublishError(f"{name} is {list(factors.shape)} on a weight that is {list(weight.shape)}")
        return weight * factors.float()

    scales_outputs = factors.shape[1] == 1
    return WeightChange((name,), apply, (lambda bias: bias * factors[:, 0].float()) if scales_outputs else None)


def _of_vera(adapter: Adapter) -> dict[str, WeightChange]:
    """W + diag(b) B diag(d) A (arXiv 2310.11454), of the shared B and A those rows and columns that W has."""
    rest = dict(adapter.tensors)
    shared = [rest.pop(name, None) for name in VERA_SHARED]
    changes: dict[str, WeightChange] = {}
    for name in [name for name in rest if name.endswith(_VERA_B)]:
        module = name.removesuffix(_VERA_B).removeprefix(SAVED_PREFIX)
        d_name = name.removesuffix(_VERA_B) + _VERA_D
        if d_name not in rest or shared[0] is None or shared[1] is None:
            raise PublishError(f"version {adapter.version}: {name} was sent without {d_name} or the shared matrices")
        changes[module] = _of_vectors((name, d_name), rest.pop(name), rest.pop(d_name), shared[0], shared[1])
    if rest:
        raise PublishError(f"version {adapter.version}: {next(iter(rest))} is not a tensor of VeRA, or lacks its other")
    return changes


def _of_vectors(names: tuple[str, str], b: Tensor, d: Tensor, down: Tensor, up: Tensor) -> WeightChange:
    def apply(weight: Tensor) -> Tensor:
        num_outputs, num_inputs = weight.shape
        if b.shape[0] != num_outputs or down.shape[1] < num_inputs or up.shape[0] < num_outputs:
            raise PublishError(f"{names[0]} is {list(b.shape)} on a weight that is {list(weight.shape)}")
        outer, inner = up[:num_outputs].float(), down[:, :num_inputs].float()
        return weight + (b.float()[:, None] * outer) @ (d.float()[:, None] * inner)

    return WeightChange((*names, *VERA_SHARED), apply)


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
