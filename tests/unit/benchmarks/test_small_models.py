"""A small Llama that ends by itself: its EOS has the probability that was asked for, wherever it is."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.material import SIZES, Material
from benchmarks.small_models import hazard_of


@pytest.mark.parametrize("size", ["tiny", "3m"])
def test_the_eos_has_its_probability_at_every_token(size: str, tmp_path: Path) -> None:
    folder = Material(tmp_path, None).policy(size, 6.4, 16)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        probabilities = model(torch.randint(len(tokenizer), (16, 32))).logits.softmax(-1)
    ends = probabilities[..., tokenizer.eos_token_id]
    assert float(ends.mean()) == pytest.approx(hazard_of(6.4, 16), rel=0.25)
    assert float(probabilities[..., tokenizer.pad_token_id].max()) < 1e-12


def test_an_endless_one_never_ends(tmp_path: Path) -> None:
    folder = Material(tmp_path, None).policy("tiny")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.hidden_size == SIZES["tiny"]["hidden_size"]
    with torch.no_grad():
        logits = model(torch.randint(len(tokenizer), (16, 32))).logits
    assert float(logits.softmax(-1)[..., tokenizer.eos_token_id].max()) < 1e-12
