"""Bradley-Terry's loss and gradient beside those of TRL's own RewardTrainer, for the same BERT and the same pairs."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from plumbob.configs.settings.offline_objectives import BradleyTerry
from plumbob.data.records import Ranking
from plumbob.reward.reward_models.bert_encoding import EncodedPair
from plumbob.trainers.offline.reward_modelling.reward_batch import RewardModule, collate_responses, encode_responses
from plumbob.trainers.offline.reward_modelling.reward_model import reward_loss_terms
from tests.support.tiny_scorer import bert_tokenizer, write_scorer

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

RANKINGS = [
    Ranking("a b", ("c d e", "f")),
    Ranking("g h i", ("j", "k l m n o")),
    Ranking("p", ("q r", "s t u")),
    Ranking("v w", ("x", "y z")),
]
MARGINS = [0.0, 0.5, 1.0, 2.5]
ARGUMENTS: dict[str, Any] = {
    **{"bf16": False, "gradient_checkpointing": False, "report_to": [], "use_cpu": True, "max_length": None},
    **{"per_device_train_batch_size": len(RANKINGS), "disable_tqdm": True},
}
WITHOUT_EFFECT = ("key.bias", "classifier.bias")
"""Their gradient is 0: the first moves all of a token's attention scores alike, the second both rewards."""
Found = tuple[float, dict[str, torch.Tensor]]


def pairs() -> list[tuple[EncodedPair, ...]]:
    """As we encode them, but with every type 0: TRL has no types, with which BERT tells a prompt from its response."""
    encoded = encode_responses(bert_tokenizer(), RANKINGS, 32)
    return [tuple(EncodedPair(own.input_ids, [0] * len(own.input_ids)) for own in row) for row in encoded]


def gradient_of(loss: torch.Tensor, model: torch.nn.Module) -> Found:
    model.zero_grad()
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def trls(model: Any, margins: list[float] | None, folder: Path) -> Found:
    rows = [{"chosen_ids": chosen.input_ids, "rejected_ids": rejected.input_ids} for chosen, rejected in pairs()]
    if margins:
        rows = [{**row, "margin": margin} for row, margin in zip(rows, margins, strict=True)]
    trainer = trl.RewardTrainer(
        copy.deepcopy(model),
        args=trl.RewardConfig(str(folder), **ARGUMENTS),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=bert_tokenizer(),
    )
    (batch,) = trainer.get_train_dataloader()
    return gradient_of(trainer.compute_loss(trainer.model, batch), trainer.model)


def ours(model: Any, objective: BradleyTerry, margins: list[float] | None) -> Found:
    """As a learner makes it: the pass's sum over its count."""
    classifier = copy.deepcopy(model).eval()
    (only,) = reward_loss_terms(objective)
    batch = collate_responses(bert_tokenizer(), pairs(), margins)
    return gradient_of(
        only.loss_sum(RewardModule(classifier, takes_types=True), batch).loss / only.count(batch), classifier
    )


@pytest.mark.parametrize("margins", [None, MARGINS], ids=["plain", "with margins"])
def test_bradley_terry(margins: list[float] | None, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(write_scorer(tmp_path / "bert"), dtype=torch.float32)
    found = ours(model, BradleyTerry(use_margin=margins is not None), margins)
    expected = trls(model, margins, tmp_path)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found[1].keys() == expected[1].keys() and len(found[1]) > 10
    for name, gradient in expected[1].items():
        # float32 sums in another order.
        largest = float(gradient.abs().max())
        assert largest > 1e-5 or name.endswith(WITHOUT_EFFECT), name
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=1e-4 * largest + 1e-7)
