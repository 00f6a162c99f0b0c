"""Proof that a published adapter is the one that will be sampled from: what the engine holds against what was sent."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plumbob.core.errors import RunFailed
from plumbob.models.adapter import Adapter

MAX_ALLOWED = 0.0
"""Both sides are rounded alike, so they agree to the bit. Any slack of the size of a rounding would let a stale
neighbour pass: in bfloat16 one small update moves few elements, and those by one unit in the last place."""

_LORA_TENSOR = re.compile(r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?:embedding_)?(?P<side>[AB])(?:\.weight)?$")


class PublishError(RunFailed):
    """A worker does not hold the adapter that the learner sent."""


@dataclass(frozen=True)
class PublishProof:
    """What was read back from inside one worker's engine after a load.

    Attributes:
        worker: whose engine it was.
        version: the policy version that was compared.
        num_tensors: how many tensors were sent, found and compared.
        max_abs_difference: over all elements.
        max_allowed: the bound that it was held to.
        seconds: of the whole load: writing, loading, reading back and comparing.
    """

    worker: str
    version: int
    num_tensors: int
    max_abs_difference: float
    max_allowed: float
    seconds: float


def lora_scaling(config: Mapping[str, Any], module: str, rank: int) -> float:
    """What multiplies `B A x` in one module: alpha / r, or alpha / sqrt(r) with rsLoRA (arXiv 2312.03732).

    A key of PEFT's `alpha_pattern` names a module when it is the end of the module's name, from a dot on.
    """
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    matches = (alpha for key, alpha in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
    alpha = next(matches, config["lora_alpha"])
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def served_tensors(adapter: Adapter, dtype: torch.dtype) -> dict[str, Tensor]:
    """The adapter as an engine of `dtype` should hold it: rounded, then B multiplied by the scaling in that dtype.

    Raises:
        PublishError: a tensor is no part of a LoRA, or its other half is missing.
    """
    sides: dict[tuple[str, str], str] = {}
    for name in adapter.tensors:
        match = _LORA_TENSOR.match(name)
        if match is None:
            raise PublishError(f"version {adapter.version}: {name} is not a LoRA tensor and cannot be served")
        sides[match["module"], match["side"]] = name
    served: dict[str, Tensor] = {}
    for (module, side), name in sides.items():
        other = sides.get((module, "B" if side == "A" else "A"))
        if other is None:
            raise PublishError(f"version {adapter.version}: {name} was sent without its other half")
        served[name] = adapter.tensors[name].to(dtype, copy=True)
        if side == "B":
            rank = adapter.tensors[other].shape[0]
            served[name] *= lora_scaling(adapter.config, module, rank)
    return served


def max_difference(expected: Tensor, found: Tensor) -> float:
    """Largest |expected - found|. `found` may be larger: what is outside `expected` has to be zero. NaN stays NaN."""
    padded = torch.zeros_like(found)
    padded[tuple(slice(length) for length in expected.shape)] = expected
    return float((padded.double() - found.double()).abs().max())


def verify_publish(
    worker: str, version: int, sent: Iterable[str], differences: Mapping[str, float], seconds: float
) -> PublishProof:
    """Turn the differences that were found, by tensor name, into a proof.

    Raises:
        PublishError: a tensor that was sent was not found, or one differs; says which, and by how much.
    """
    names = list(sent)
    missing = [name for name in names if name not in differences]
    if missing:
        raise PublishError(
            f"worker {worker}, version {version}: the engine holds no {missing[0]} "
            f"({len(missing)} of {len(names)} tensors were sent and not loaded)"
        )
    for name, difference in differences.items():
        # Written so that NaN fails.
        if not difference <= MAX_ALLOWED:
            raise PublishError(
                f"worker {worker}, version {version}: the engine's {name} differs from the learner's "
                f"by {difference:.3g} (allowed: {MAX_ALLOWED}); the engine holds a stale or corrupt adapter"
            )
    return PublishProof(worker, version, len(names), max(differences.values(), default=0.0), MAX_ALLOWED, seconds)
