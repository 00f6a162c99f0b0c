"""LoRA that begins with parts of the base's own weights, beside a base that stays as it is: PiSSA and OLoRA.

PEFT takes s B0 A0 out of the base, and trains A and B from A0 and B0 on. Here the base W stays, for the reference and
the critic, and what is trained is how far A and B have come, dA and dB, which begin at zero:

    (W - s B0 A0) + s (B0 + dB) (A0 + dA)  =  W + s [dB | B0] [A0 + dA; dA]

The gradients are those of A and B. On the right stands plain LoRA of twice the rank on W itself, which is what is
published and exported; before the first update it adds zero to the bit.
"""

from collections.abc import Mapping
from math import sqrt
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import LoraLayer, LoraVariant
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn
from torch.nn import functional

from plumbob.configs.settings.tuning.adapters import FROM_WEIGHTS, LoraInit
from plumbob.models.tuning.starts.start_buffers import START

NUM_ITERATIONS = 16
"""Of the randomised SVD, in which it comes as near as the whole one for training."""


class StartedLora(LoraVariant):
    """The forward of an adapter whose A and B are kept as their distances dA and dB from where they began."""

    @staticmethod
    def forward(module: Any, active_adapter: str, x: Tensor, result: Tensor, **_: Any) -> Tensor:
        down, up = module.lora_A[active_adapter], module.lora_B[active_adapter]
        x = module.lora_dropout[active_adapter](x)
        moved = down(x)
        low = moved + functional.linear(x, down.start)
        delta: Tensor = up(low) + functional.linear(moved, up.start)
        return result + delta * module.scaling[active_adapter]


def begin_from_weights(model: PeftModel, names: tuple[str, ...], init: LoraInit) -> None:
    """Let new adapters, which PEFT has begun as it does by default, begin with parts of the base's weights.

    Args:
        init: one of FROM_WEIGHTS; with any other nothing is changed.
    """
    if init not in FROM_WEIGHTS:
        return
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            weight = dequantize_module_weight(layer.get_base_layer()).detach().float()
            weight = weight.T if getattr(layer, "fan_in_fan_out", False) else weight
            first = names[0]  # All have the same rank and scaling.
            a, b = start_of(weight, layer.r[first], layer.scaling[first], init)
            for name in names:
                _begin(layer, name, a, b)


def start_of(weight: Tensor, rank: int, scaling: float, init: LoraInit) -> tuple[Tensor, Tensor]:
    """A0 [rank, in] and B0 [out, rank] of a weight [out, in]; zeros where the rank is more than the weight can have.

    PiSSA (arXiv 2404.02948): s B0 A0 is the part of the largest singular values, equally divided. OLoRA (arXiv
    2406.01775): the first columns of Q and rows of R, of W = Q R. Signs, which both leave open, are made such that the
    largest number of each row of A0 is positive: any machine finds the same but for rounding.
    """
    if init == "olora":
        q, r = torch.linalg.qr(weight)
        a, b = r[:rank], q[:, :rank]
    else:
        u, s, vh = _svd(weight, rank, init)
        root = (s[:rank] / scaling).sqrt()
        a, b = root[:, None] * vh[:rank], u[:, :rank] * root
    signs = a.gather(1, a.abs().argmax(dim=1, keepdim=True)).sign()
    missing = rank - len(a)
    return functional.pad(a * signs, (0, 0, 0, missing)), functional.pad(b * signs.T, (0, missing))


def _svd(weight: Tensor, rank: int, init: LoraInit) -> tuple[Tensor, Tensor, Tensor]:
    if init == "pissa":
        u, s, vh = torch.linalg.svd(weight, full_matrices=False)
        return u, s, vh
    u, s, v = torch.svd_lowrank(weight, min(rank, *weight.shape), niter=NUM_ITERATIONS)
    return u, s, v.T


def _begin(layer: Any, name: str, a: Tensor, b: Tensor) -> None:
    for half, start in ((layer.lora_A[name], a), (layer.lora_B[name], b)):
        nn.init.zeros_(half.weight)
        half.register_buffer(START, start.to(half.weight).contiguous(), persistent=False)
    layer.lora_variant[name] = StartedLora()


def as_plain_lora(
    model: PeftModel, adapter: str, config: dict[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """An adapter as it is trained, made what fits the base as it is; what did not begin from weights stays the same.

    Args:
        config: of `adapter_config.json`.
        tensors: PEFT's saved name -> CPU tensor.
    """
    plain, starts = dict(tensors), 0
    for path, layer in model.named_modules():
        if not isinstance(getattr(layer, "lora_variant", {}).get(adapter), StartedLora):
            continue
        starts += 1
        a_name, b_name = (f"{path}.lora_{side}.weight" for side in "AB")
        a, b = tensors[a_name], tensors[b_name]
        a_start, b_start = (half[adapter].start.to(a) for half in (layer.lora_A, layer.lora_B))
        plain[a_name], plain[b_name] = torch.cat([a + a_start, a]), torch.cat([b, b_start], dim=1)
    return (_of_twice_the_rank(config) if starts else config), plain


def _of_twice_the_rank(config: Mapping[str, Any]) -> dict[str, Any]:
    """With the same scaling alpha / rank, or alpha / sqrt(rank)."""
    factor = sqrt(2) if config.get("use_rslora") else 2
    ranks, alphas = (config.get(name) or {} for name in ("rank_pattern", "alpha_pattern"))
    return {
        **config,
        "r": 2 * config["r"],
        "lora_alpha": factor * config["lora_alpha"],
        "rank_pattern": {name: 2 * rank for name, rank in ranks.items()},
        "alpha_pattern": {name: factor * alpha for name, alpha in alphas.items()},
    }
