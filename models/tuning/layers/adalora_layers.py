"""PEFT's AdaLoRA layers, s B diag(e) A: as plain LoRA that others load, and how far A and B are from orthogonal."""

from collections.abc import Mapping
from typing import Any

import torch
from peft import AdaLoraConfig, LoraConfig
from peft.tuners.adalora.layer import AdaLoraLayer
from torch import Tensor, nn

from plumbob.models.adapter import SAVED_PREFIX

EPSILON = 1e-5
"""What PEFT adds to the rank that it divides by."""


def left_as_lora(config: AdaLoraConfig, tensors: Mapping[str, Tensor]) -> tuple[LoraConfig, dict[str, Tensor]]:
    """An adapter as plain LoRA of the ranks whose factor is not zero. It computes the same, as s diag(e) A beside B.

    A module that has none left gets one of zeros, so that it can be trained further.

    Args:
        config: PEFT's of the adapter as it is trained.
        tensors: PEFT's saved name -> CPU tensor: e [r, 1], A [r, in] and B [out, r] of each module.

    Returns:
        A config with the rank of each module, and tensors by PEFT's saved names.
    """
    ends = ".lora_E"
    plain, ranks = dict[str, Tensor](), dict[str, int]()
    for saved in (name.removesuffix(ends) for name in tensors if name.endswith(ends)):
        e, a, b = (tensors[f"{saved}.lora_{part}"] for part in "EAB")
        left = e.flatten() != 0
        if not left.any():
            left[0] = True
        plain[f"{saved}.lora_A.weight"], plain[f"{saved}.lora_B.weight"] = (a * e)[left], b[:, left]
        ranks[saved.removeprefix(SAVED_PREFIX)] = int(left.sum())
    scaling = config.lora_alpha / (config.init_r + EPSILON)
    largest = max(ranks.values())
    others = {name: rank for name, rank in ranks.items() if rank != largest}
    lora = LoraConfig(
        r=largest,
        lora_alpha=scaling * largest,
        lora_dropout=config.lora_dropout,
        target_modules=config.target_modules,
        rank_pattern=others,
        alpha_pattern={name: scaling * rank for name, rank in others.items()},
        fan_in_fan_out=config.fan_in_fan_out,
        task_type=config.task_type,
        base_model_name_or_path=config.base_model_name_or_path,
    )
    return lora, plain


def orthogonality(model: nn.Module, adapter: str) -> Tensor:
    """Mean over all A [r, in] and B [out, r] of || A A^T - I || and || B^T B - I ||, as PEFT adds it to a loss."""
    found = []
    for layer in model.modules():
        if isinstance(layer, AdaLoraLayer) and adapter in layer.lora_A:
            a, b = layer.lora_A[adapter], layer.lora_B[adapter]
            found += [_distance(a @ a.T), _distance(b.T @ b)]
    return torch.stack(found).mean()


def _distance(products: Any) -> Tensor:
    one = torch.eye(len(products), dtype=products.dtype, device=products.device)
    distance: Tensor = torch.linalg.matrix_norm(products - one)
    return distance
