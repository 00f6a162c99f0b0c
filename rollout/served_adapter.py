"""What an adapter is to an engine: pairs B A with their scaling, served beside the base's weights or merged into them.

W + scaling * B A (Hu et al. 2021, arXiv 2106.09685), as PEFT computes it.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plumbob.models.adapter import Adapter
from plumbob.rollout.publish_proof import PublishError

_LORA_TENSOR = re.compile(
    r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?:\.weight)?$"
)


@dataclass(frozen=True)
class LoraPair:
    """What an adapter adds to one module.

    Attributes:
        a_name, b_name: PEFT's saved names of the two halves.
        a, b: [r, in] and [out, r]. Of an embedding `in` is the vocabulary and `out` the width.
        scaling: what multiplies B A.
        is_embedding: whether the module looks tokens up, so that its weight is [in, out].
    """

    a_name: str
    b_name: str
    a: Tensor
    b: Tensor
    scaling: float
    is_embedding: bool


def lora_scaling(config: Mapping[str, Any], module: str, rank: int) -> float:
    """What multiplies `B A x` in one module: alpha / r, or alpha / sqrt(r) with rsLoRA (arXiv 2312.03732).

    A key of PEFT's `alpha_pattern` names a module when it is the end of the module's name, from a dot on.
    """
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    matches = (alpha for key, alpha in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
    alpha = next(matches, config["lora_alpha"])
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def lora_pairs(adapter: Adapter) -> dict[str, LoraPair]:
    """By the name that the module has in transformers' model. The rank of each is that of its own tensors.

    Raises:
        PublishError: a tensor is no part of a LoRA, or its other half is missing.
    """
    sides: dict[tuple[str, str], str] = {}
    on_embeddings = set[str]()
    for name in adapter.tensors:
        match = _LORA_TENSOR.match(name)
        if match is None:
            raise PublishError(f"version {adapter.version}: {name} is not a LoRA tensor and cannot be served")
        sides[match["module"], match["side"]] = name
        if match["embedding"]:
            on_embeddings.add(match["module"])
    for (module, side), name in sides.items():
        if (module, "B" if side == "A" else "A") not in sides:
            raise PublishError(f"version {adapter.version}: {name} was sent without its other half")
    pairs: dict[str, LoraPair] = {}
    for module in dict.fromkeys(module for module, _ in sides):
        a_name, b_name = sides[module, "A"], sides[module, "B"]
        a, b = adapter.tensors[a_name], adapter.tensors[b_name]
        scaling = lora_scaling(adapter.config, module, a.shape[0])
        pairs[module] = LoraPair(a_name, b_name, a, b, scaling, module in on_embeddings)
    return pairs


def served_tensors(adapter: Adapter, dtype: torch.dtype) -> dict[str, Tensor]:
    """The adapter as an engine of `dtype` should hold it: rounded, then B multiplied by the scaling in that dtype.

    Raises:
        PublishError: as `lora_pairs`.
    """
    served: dict[str, Tensor] = {}
    for pair in lora_pairs(adapter).values():
        served[pair.a_name] = pair.a.to(dtype, copy=True)
        served[pair.b_name] = pair.b.to(dtype, copy=True) * pair.scaling
    return served
