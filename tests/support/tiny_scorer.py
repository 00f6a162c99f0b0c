"""A tiny BERT as a reward model, with a tokenizer of one word a letter, made on the spot from a seed."""

import string
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from plumbob.configs.settings.models import REWARD_MODEL, ModelRef
from plumbob.configs.settings.rewards import ModelReward

PAD, UNK, CLS, SEP, MASK = range(5)
A = 5
"""Id of the word "a"; the other letters follow."""


def bert_tokenizer(**options: Any) -> BertTokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase]
    return BertTokenizer(vocab={word: index for index, word in enumerate(words)}, **options)


def bert_config(**options: Any) -> BertConfig:
    return BertConfig(
        vocab_size=31,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        pad_token_id=PAD,
        **options,
    )


def write_scorer(folder: Path, seed: int = 0) -> Path:
    """A reward model whose weights are large enough to spread its scores."""
    torch.manual_seed(seed)
    BertForSequenceClassification(bert_config(num_labels=1, initializer_range=0.4)).save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)
    return folder


def model_reward(
    folder: Path | str,
    batch_size: int = 8,
    max_tokens: int = 32,
    is_calibrated: bool = False,
    setting: str = REWARD_MODEL,
) -> ModelReward:
    """The reward model in a folder, as settings give it."""
    return ModelReward(ModelRef(str(folder), setting), batch_size, max_tokens, is_calibrated)
