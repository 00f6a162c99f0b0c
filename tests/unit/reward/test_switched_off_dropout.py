"""A reward model that drops nothing out in training computes twice the same, whatever its architecture."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
)

from plumbob.configs.runs import RewardRun
from plumbob.reward.reward_models.bert_model import switch_dropout_off
from plumbob.trainers.offline.reward_modelling.reward_model import learner_parts
from tests.support.tiny_scorer import bert_config, bert_tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_labels": 1,
    "pad_token_id": 0,
}
HALF = {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5}
CONFIGS = {
    "bert": BertConfig(**SIZES, **HALF),
    "electra": ElectraConfig(**SIZES, **HALF),
    "deberta-v2": DebertaV2Config(**SIZES, **HALF, pooler_dropout=0.5),
    "distilbert": DistilBertConfig(
        vocab_size=31, dim=16, hidden_dim=32, n_layers=2, n_heads=2, num_labels=1, dropout=0.5, attention_dropout=0.5
    ),
    "modernbert": ModernBertConfig(
        **SIZES, embedding_dropout=0.5, attention_dropout=0.5, mlp_dropout=0.5, classifier_dropout=0.5
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_training_computes_what_evaluation_does(name: str) -> None:
    torch.manual_seed(0)
    model: Any = AutoModelForSequenceClassification.from_config(CONFIGS[name])
    given = {"input_ids": torch.arange(5, 29).reshape(2, 12), "attention_mask": torch.ones(2, 12, dtype=torch.int64)}
    before = model.config.to_dict()
    expected = model.eval()(**given).logits
    model.train()
    assert not torch.allclose(model(**given).logits, expected)
    switch_dropout_off(model)
    assert torch.equal(model(**given).logits, expected)
    assert model.config.to_dict() == before


@pytest.mark.parametrize(("dropout", "rate"), [(True, 0.5), (False, 0.0)])
def test_a_run_asks_for_it(tmp_path: Path, dropout: bool, rate: float) -> None:
    BertForSequenceClassification(bert_config(num_labels=1, **HALF)).save_pretrained(tmp_path / "bert")
    bert_tokenizer().save_pretrained(tmp_path / "bert")
    run = RewardRun.model_validate(
        {
            "reward": {"model": str(tmp_path / "bert"), "max_tokens": 16},
            "reward_training": {"dropout": dropout},
            "data": {"pairs": "unread"},
        }
    )
    parts = learner_parts(run)
    assert {module.p for module in parts.module.modules() if isinstance(module, nn.Dropout)} == {rate}
    parts.artifact.export(dict(parts.module.named_parameters()), tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).hidden_dropout_prob == 0.5
