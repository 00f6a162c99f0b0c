"""Reward models by LoRA and on 4 bits: what is trained, what is written, and that it scores as what was trained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from plumbob.configs.runs import RewardRun
from plumbob.configs.settings.models import REWARD_MODEL, ModelRef
from plumbob.core.errors import UserError
from plumbob.models.loading import open_model
from plumbob.models.quantization.forms import round_weights
from plumbob.models.tuning.classifiers import num_trained
from plumbob.reward.reward_models.bert_encoding import EncodedPair
from plumbob.trainers.build import build_learner
from plumbob.trainers.learner.learner_protocol import UpdatePlan, merge_results
from plumbob.trainers.offline.reward_modelling.reward_batch import RewardBatch, collate_responses, response_rewards
from plumbob.trainers.offline.reward_modelling.reward_model import check_encoder
from tests.support.learner_ranks import Ranks, numpy_state, this_rank
from tests.support.tiny_scorer import CLS, SEP, A, bert_config, bert_tokenizer

LORA = {"kind": "lora", "rank": 4, "alpha": 16}
NF4 = {"kind": "nf4", "block_size": 32}
NUM_STEPS = 8


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """32 wide, so that rows are of whole blocks; without a head of its own."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = bert_config(num_labels=1, initializer_range=0.4)
    config.hidden_size, config.intermediate_size = 32, 64
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    BertForSequenceClassification(config).bert.save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)
    return str(folder)


def run_of(encoder: str, num_ranks: int = 1, **reward: Any) -> RewardRun:
    return RewardRun.model_validate(
        {
            "data": {"pairs": "unread"},
            "reward": {"model": encoder, "max_tokens": 16, **reward},
            "reward_training": {"learning_rate": 1e-2, "batch_size": 4},
            "learner": {"micro_batch_size": 2, "num_workers": num_ranks, "autocast": False},
        }
    )


def pairs() -> RewardBatch:
    """Of each the better response ends in "a", the worse one in "b"."""

    def response(prompt: int, last: int) -> EncodedPair:
        ids = [CLS, A + prompt, SEP, *[A + 7] * prompt, A + last, SEP]
        return EncodedPair(ids, [0, 0, 0, *[1] * (len(ids) - 3)])

    return collate_responses(bert_tokenizer(), [(response(prompt, 0), response(prompt, 1)) for prompt in range(4)])


def trained(folder: Path, encoder: str, num_ranks: int, reward: dict[str, Any]) -> Any:
    """Results of updates, state, rewards, what was to be trained, what moved beside it; `folder` gets the model."""
    learner = build_learner(run_of(encoder, num_ranks, **reward), this_rank())
    frozen = {name: p.clone() for name, p in learner.model.named_parameters() if not p.requires_grad}
    named = {name for name, p in learner.model.named_parameters() if p.requires_grad}
    results = [learner.update(pairs(), UpdatePlan(4, 1, 1.0, 0)) for _ in range(NUM_STEPS)]
    moved = [
        name for name, p in learner.model.named_parameters() if name in frozen and not torch.equal(frozen[name], p)
    ]
    folder.mkdir(exist_ok=True)
    learner.export(folder)
    rewards = learner.compute(pairs(), None, response_rewards)
    return results, numpy_state(learner), rewards, named, moved


def plain_rewards(folder: Path) -> np.ndarray:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        found: np.ndarray = response_rewards(
            lambda ids, mask, types: model(ids, attention_mask=mask, token_type_ids=types).logits[:, 0], pairs()
        ).numpy()
    return found


@pytest.mark.parametrize("quantization", [None, NF4], ids=["floats", "nf4"])
def test_what_is_written_scores_as_what_was_trained(
    one_rank: Ranks, encoder: str, tmp_path: Path, quantization: dict[str, Any] | None
) -> None:
    ((results, _, rewards, named, moved),) = one_rank.run(
        trained, tmp_path / "out", encoder, 1, {"tuning": LORA, "quantization": quantization}
    )
    first, last = (merge_results([result])["loss"] for result in (results[0], results[-1]))
    assert last < 0.7 * first
    assert not moved
    assert {name.rpartition(".")[2] for name in named if "lora" not in name} == {"weight", "bias"}
    assert all("lora_" in name or "pooler" in name or ".classifier." in name for name in named)
    assert plain_rewards(tmp_path / "out") == pytest.approx(rewards, abs=2e-5)
    # What it stands on are the encoder's weights, or their 4 bits, and B A is not nothing.
    own = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=1)
    if quantization is not None:
        round_weights(own, run_of(encoder, tuning=LORA, quantization=quantization).reward.quantization)  # type: ignore[arg-type]
    before, after = own.state_dict(), AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").state_dict()
    key = "bert.encoder.layer.0.attention.self.query.weight"
    update = (after[key] - before[key]).double()
    assert torch.linalg.matrix_rank(update, atol=1e-5) == LORA["rank"]
    assert torch.equal(
        after["bert.embeddings.word_embeddings.weight"], before["bert.embeddings.word_embeddings.weight"]
    )


def test_two_ranks_train_what_one_does(one_rank: Ranks, two_ranks: Ranks, encoder: str, tmp_path: Path) -> None:
    ((_, alone, rewards, _, _),) = one_rank.run(trained, tmp_path / "one", encoder, 1, {"tuning": LORA})
    parts = two_ranks.run(trained, tmp_path / "two", encoder, 2, {"tuning": LORA})
    for name, tensor in alone.items():
        assert np.abs(parts[0][1][name] - tensor).max() <= 1e-4 * max(float(np.abs(tensor).max()), 1e-2), name
    assert plain_rewards(tmp_path / "two") == pytest.approx(rewards, abs=1e-3)


def test_how_much_is_trained(encoder: str) -> None:
    run = run_of(encoder, tuning=LORA)
    model = open_model(ModelRef(encoder, REWARD_MODEL)).empty(AutoModelForSequenceClassification)
    # Four layers of 32 to 32, one of 32 to 64 and one back, twice; a pooler of 32 to 32 and a head to 1, with biases.
    adapters = 2 * (4 * 4 * (32 + 32) + 2 * 4 * (32 + 64))
    assert num_trained(model, run.reward.tuning) == adapters + 32 * 32 + 32 + 32 + 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reward", "wanted"),
    [
        ({"tuning": {**LORA, "targets": ["q_proj"]}}, r"reward\.tuning\.targets: q_proj is no linear layer .* query"),
        ({"tuning": LORA, "quantization": {"kind": "nf4", "block_size": 4096}}, r"block_size=4096: no linear layer"),
    ],
)
def test_what_cannot_be_tuned_is_said_before_anything_is_loaded(
    encoder: str, reward: dict[str, Any], wanted: str
) -> None:
    with pytest.raises(UserError, match=wanted):
        check_encoder(run_of(encoder, **reward).reward)


def test_weights_of_4_bits_are_not_trained_and_random_ones_are(encoder: str) -> None:
    with pytest.raises(ValueError, match=r"set reward\.tuning\.kind=lora"):
        run_of(encoder, quantization=NF4)
    new = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 32, "vocab_size": 300}
    with pytest.raises(ValueError, match="a new encoder's are random"):
        RewardRun.model_validate({"data": {"pairs": "unread"}, "reward": {"model": new, "tuning": LORA}})
