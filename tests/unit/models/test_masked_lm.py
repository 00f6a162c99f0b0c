"""Encoders that learn masked words: what a folder must hold."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from plumbob.configs.settings.models import ModelRef, NewBertSettings
from plumbob.core.errors import UserError
from plumbob.models.from_scratch import build_bert
from plumbob.models.masked_lm import load_masked_lm, open_encoder


def test_an_encoder_without_its_tokenizer(tmp_path: Path) -> None:
    """transformers makes a BERT tokenizer of the five special tokens out of nothing: every word would be unknown."""
    spec = NewBertSettings(vocab_size=64, hidden_size=32, num_layers=1, num_heads=1, intermediate_size=32)
    build_bert(spec, ["some words to learn letters from"], tmp_path, seed=0)
    ref = ModelRef(str(tmp_path), "reward.model")
    opened = open_encoder(ref)
    model = load_masked_lm(opened)
    assert len(opened.tokenizer) == model.config.vocab_size > 5
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == 5
    with pytest.raises(UserError) as refused:
        _ = open_encoder(ref).tokenizer
    assert f"reward.model={tmp_path}: no tokenizer can be loaded" in str(refused.value)
    assert "there is none of tokenizer.json, vocab.txt" in str(refused.value)
