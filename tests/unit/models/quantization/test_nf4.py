"""4-bit weights against the paper's definition by hand, and as models are loaded with them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from plumbob.configs.base import Dtype
from plumbob.configs.settings.models import ModelRef
from plumbob.configs.settings.tuning.quantization import Nf4Quantization
from plumbob.core.errors import UserError
from plumbob.models.loading import load_causal_lm, open_base
from plumbob.models.quantization.nf4 import layers_of_4_bits, num_bytes, quantize, round_weights, rounded
from plumbob.models.quantization.quantised_layers import base_bytes, quantised_layers
from plumbob.models.resolution import ModelSource

QUANTILES = torch.tensor(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
        *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
        *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)
"""Appendix E of the paper."""

PLAIN = Nf4Quantization(double_quantization=False)


def by_hand(weight: Tensor, block_size: int) -> Tensor:
    """Each block's absolute maximum times the quantile that is nearest, over the weight's elements in their order."""
    found = torch.empty(weight.numel())
    for start in range(0, weight.numel(), block_size):
        block = weight.flatten()[start : start + block_size]
        scale = block.abs().max()
        nearest = (block[:, None] / scale - QUANTILES).abs().argmin(dim=1)
        found[start : start + block_size] = scale * QUANTILES[nearest]
    return found.reshape(weight.shape)


@pytest.mark.parametrize("block_size", [32, 64, 256])
@pytest.mark.parametrize("shape", [(8, 256), (5, 512), (3, 1280)])
def test_rounded_weights_are_the_papers(shape: tuple[int, int], block_size: int) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 0.02
    found = rounded(weight, Nf4Quantization(double_quantization=False, block_size=block_size))
    torch.testing.assert_close(found, by_hand(weight, block_size), rtol=1e-6, atol=0)


def test_double_quantization_moves_scales_by_half_a_step_of_8_bits() -> None:
    weight = torch.randn(64, 1024, generator=torch.Generator().manual_seed(2)) * 0.02
    once, twice = rounded(weight, PLAIN), rounded(weight, Nf4Quantization())
    scales = [each.reshape(-1, 64).abs().amax(dim=1) for each in (once, twice)]
    assert not torch.equal(*scales)
    # What is left of a scale after the mean of all is taken off has 8 bits, finer near 0 and nowhere coarser than 1/64.
    spread = (scales[0] - scales[0].mean()).abs().max()
    assert float((scales[0] - scales[1]).abs().max()) < float(spread) / 64
    # The index of every weight stays.
    shares = [
        (floats.reshape(-1, 64) / scale[:, None]).flatten() for floats, scale in zip((once, twice), scales, strict=True)
    ]
    torch.testing.assert_close(*shares, rtol=1e-5, atol=1e-6)


def test_bits_a_weight_are_what_is_kept() -> None:
    weight = torch.randn(512, 1024)
    for settings, expected in ((PLAIN, 4.5), (Nf4Quantization(), 4.126953125), (Nf4Quantization(block_size=256), None)):
        found = 8 * num_bytes(*quantize(weight, settings)) / weight.numel()
        # One float beside it all is the mean of the scales.
        assert found == pytest.approx(settings.bits_per_weight, abs=32 / weight.numel() + 1e-9)
        assert expected is None or settings.bits_per_weight == expected
    # The paper: from 0.5 bits a parameter to 0.127, which saves 0.373.
    assert Nf4Quantization().bits_per_weight - 4 == pytest.approx(0.127, abs=5e-4)
    assert PLAIN.bits_per_weight - Nf4Quantization().bits_per_weight == pytest.approx(0.373, abs=5e-4)


# ------------------------------------------------------------------------------------------------------------- models


def save(folder: Path, config: Any, dtype: torch.dtype = torch.float32) -> str:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
    return str(folder)


def llama(**changes: Any) -> LlamaConfig:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaConfig(vocab_size=50, num_key_value_heads=2, max_position_embeddings=32, **sizes, **changes)


FAMILIES = {
    "llama": llama(),
    "llama with shared embeddings and biases": llama(tie_word_embeddings=True, attention_bias=True),
    "gpt2": GPT2Config(vocab_size=50, n_positions=32, n_embd=64, n_layer=2, n_head=2),
}


NUM_LAYERS = {("gpt2", 64): 8, ("gpt2", 32): 8}
"""Linear layers whose rows are whole blocks: all have rows of 64, but for GPT-2's last of 256 and Llama's of 96."""
for family in ("llama", "llama with shared embeddings and biases"):
    NUM_LAYERS |= {(family, 64): 12, (family, 32): 14}


def load(folder: str, settings: Nf4Quantization | None, dtype: Dtype = "float32") -> Any:
    ref = ModelRef(folder, "policy.model", dtype=dtype, quantization=settings)
    return load_causal_lm(open_base(ref, ModelSource(folder, None)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("settings", [Nf4Quantization(), PLAIN, Nf4Quantization(block_size=32)])
def test_a_model_is_loaded_in_4_bits(settings: Nf4Quantization, family: str, dtype: Dtype, tmp_path: Path) -> None:
    folder = save(tmp_path, FAMILIES[family])
    plain, model = load(folder, None, dtype), load(folder, settings, dtype)
    expected = quantised_layers(plain, settings)
    assert len(expected) == NUM_LAYERS[family, settings.block_size]
    layers = {name: module for name, module in model.named_modules() if module in layers_of_4_bits(model)}
    assert layers.keys() == expected.keys()
    round_weights(plain, settings)
    for name, layer in layers.items():
        assert layer.weight.dtype == torch.uint8 and layer.weight.blocksize == settings.block_size
        floats = dequantize_4bit(layer.weight, layer.weight.quant_state)
        # What samplers are given is what the learner has, to the bit.
        stored = expected[name].weight
        assert torch.equal(floats, stored.T if family == "gpt2" else stored)
    kept = {name: p for name, p in model.named_parameters() if p.dtype != torch.uint8}
    assert {p.dtype for p in kept.values()} == {plain.dtype}
    assert all(torch.equal(p, plain.get_parameter(name)) for name, p in kept.items())
    # Products of equal floats; in bfloat16 of sums in another order.
    ids = torch.arange(9)[None]
    with torch.no_grad():
        logits = [each.eval()(ids).logits.float() for each in (model, plain)]
    torch.testing.assert_close(*logits, rtol=0, atol=1e-5 if dtype == "float32" else 0.05)


def test_a_model_without_whole_blocks_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, FAMILIES["llama"])
    reason = r"policy\.model=.*cannot be loaded: none of its linear layers has rows of whole blocks of 128 weights"
    with pytest.raises(UserError, match=reason):
        load(folder, Nf4Quantization(block_size=128))


def test_the_bytes_of_a_base(tmp_path: Path) -> None:
    model = load(save(tmp_path, FAMILIES["llama"]), None)
    # Two layers of 4 x 64 x 64 and 2 x 64 x 96 weights in 4.5 bits; down_proj, embeddings, head and 5 norms in 4 bytes.
    quantised, others = 2 * (4 * 64 * 64 + 2 * 64 * 96), 2 * (64 * 96 + 50 * 64) + 5 * 64
    assert base_bytes(model, 4, PLAIN) == quantised * 4.5 / 8 + 4 * others
    assert base_bytes(model, 4, None) == 4 * (quantised + others)


def test_an_evaluation_changes_neither_numbers_nor_gradients(tmp_path: Path) -> None:
    """On a CPU with bfloat16 products bitsandbytes would pack weights for them in the first evaluation."""
    model = load(save(tmp_path, FAMILIES["llama"]), Nf4Quantization())
    ids = torch.arange(9)[None]

    def trained() -> tuple[Tensor, Tensor]:
        embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
        logits = model.train()(inputs_embeds=embedded).logits
        return logits.detach(), torch.autograd.grad(logits.square().sum(), embedded)[0]

    before = trained()
    with torch.no_grad():
        evaluated = model.eval()(ids).logits
    after = trained()
    assert torch.equal(before[0], evaluated)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert before[1].abs().max() > 0
