"""The reward model: an encoder with one output, trained on preference pairs and then calibrated."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from configs.errors import UserError
from configs.models import NewBert
from configs.roles import PipelineScorer, RewardEncoder
from configs.schema import RewardRun
from data.checks import check_limits
from data.fields import Render
from data.holdout import hold_out
from data.readers import read_pairs
from data.records import PreferencePair
from models.encoder import load_encoder_tokenizer
from models.source import load_config, resolve_model
from reward.bert import KEY, EncodedPair, RewardModel, check_length, encode_pairs, pad_pairs
from trainers.learners import Learners, LossSum, Pass
from trainers.losses import bradley_terry_loss
from trainers.metrics import MetricsLog
from trainers.offline import OfflineStage, heldout_means, run_epochs

INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class RewardInput:
    """Preference pairs as text, and sentences about rows that were left out."""

    train: tuple[PreferencePair, ...]
    heldout: tuple[PreferencePair, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class RewardBatch:
    """Chosen and rejected answers side by side: int64 [B, 2, T], padded on the right."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]

    @property
    def num_rows(self) -> int:
        return len(self.input_ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        lengths: NDArray[np.int64] = self.attention_mask.sum(axis=-1).max(axis=1)
        return lengths

    def rows(self, index: NDArray[np.int64], /) -> "RewardBatch":
        width = max(int(self.attention_mask[index].sum(axis=-1).max()), 1)
        return RewardBatch(*(getattr(self, name)[index, :, :width] for name in INPUT_NAMES))


class RewardModule(nn.Module):
    """The classifier as a function of positional tensors [B, T] -> rewards float32 [B]."""

    def __init__(self, classifier: Any, takes_types: bool) -> None:
        super().__init__()
        self.classifier = classifier
        self._takes_types = takes_types

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        types = {"token_type_ids": token_type_ids} if self._takes_types else {}
        rewards: Tensor = self.classifier(input_ids=input_ids, attention_mask=attention_mask, **types).logits
        return rewards.squeeze(-1).float()


def pair_loss(forward: Any, batch: RewardBatch) -> LossSum:
    """-log sigmoid(r(chosen) - r(rejected)), both in one forward."""
    rewards = pair_rewards(forward, batch)
    result = bradley_terry_loss(rewards[:, 0], rewards[:, 1])
    statistics = {
        "loss": result.loss.detach(),
        "accuracy": result.num_correct,
        "margin": result.chosen_rewards - result.rejected_rewards,
    }
    return LossSum(result.loss, statistics)


def pair_rewards(forward: Any, batch: RewardBatch) -> Tensor:
    """Raw rewards of chosen and rejected, [B, 2]."""
    rewards: Tensor = forward(*(torch.from_numpy(getattr(batch, name)).flatten(0, 1) for name in INPUT_NAMES))
    return rewards.reshape(batch.num_rows, 2)


def num_pairs(batch: RewardBatch) -> float:
    return float(batch.num_rows)


PAIR_PASSES = (Pass(None, pair_loss, num_pairs),)


def prepare_reward(run: RewardRun, render: Render) -> RewardInput:
    """Read, check and split. Raises UserError; starts and writes nothing."""
    check_encoder(run.reward)
    data = run.data
    split = hold_out(
        lambda path: read_pairs(path, data, render),
        data.pairs,
        data.heldout_pairs,
        lambda pair: pair.prompt,
        data,
        run.seed,
    )
    return RewardInput(split.train, split.heldout, split.notes)


def check_encoder(settings: RewardEncoder | PipelineScorer) -> None:
    """What can be told of an encoder before it is made or its weights are read.

    Raises:
        UserError: its configuration or tokenizer cannot be loaded, it is no encoder that can carry a classification
            head, or it has no positions for `reward.max_tokens`.
    """
    name = settings.model
    if isinstance(name, NewBert):
        check_limits({"reward.max_tokens": settings.max_tokens}, name.max_positions, "reward.model.max_positions")
        return
    config = load_config(resolve_model(name, KEY), KEY, trust_remote_code=False)
    try:
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise UserError(f"{KEY}={name}: {config.model_type} cannot become a reward model; give a BERT") from error
    check_length(RewardModel(model, load_encoder_tokenizer(name)), name, settings.max_tokens)


def collate_pairs(tokenizer: Any, pairs: Sequence[tuple[EncodedPair, EncodedPair]]) -> RewardBatch:
    flat = pad_pairs(tokenizer, [side for pair in pairs for side in pair])
    arrays = {name: tensor.numpy().reshape(len(pairs), 2, -1) for name, tensor in flat.items()}
    types = arrays.get("token_type_ids", np.zeros_like(arrays["input_ids"]))
    return RewardBatch(arrays["input_ids"], arrays["attention_mask"], types)


def encode_sides(
    tokenizer: Any, pairs: Sequence[PreferencePair], max_tokens: int
) -> list[tuple[EncodedPair, EncodedPair]]:
    """(chosen, rejected) of every pair, each with its prompt, cut to `max_tokens`."""
    sides = [
        encode_pairs(tokenizer, [(pair.prompt, getattr(pair, side)) for pair in pairs], max_tokens)
        for side in ("chosen", "rejected")
    ]
    return list(zip(*sides, strict=True))


def count_cut(tokenizer: Any, pairs: Sequence[PreferencePair], max_tokens: int) -> int:
    """How many pairs have a side of more than `max_tokens`: one that fills a limit of one token more."""
    return sum(
        max(len(chosen.input_ids), len(rejected.input_ids)) > max_tokens
        for chosen, rejected in encode_sides(tokenizer, pairs, max_tokens + 1)
    )


def run_reward(
    run: RewardRun, data: RewardInput, tokenizer: Any, learners: Learners, folder: Path, log: MetricsLog
) -> dict[str, Any]:
    """Train and write `reward_model/`, not yet calibrated. Returns the summary's figures."""
    max_tokens = run.reward.max_tokens
    train, heldout = (encode_sides(tokenizer, side, max_tokens) for side in (data.train, data.heldout))
    num_cut = count_cut(tokenizer, (*data.train, *data.heldout), max_tokens)
    stage = OfflineStage(
        "reward",
        run.reward_training,
        run.seed,
        len(train),
        lambda index, step: collate_pairs(tokenizer, [train[i] for i in index]),
        lambda batch: int(batch.attention_mask.sum()),
    )
    run_epochs(stage, learners, folder, log)
    learners.export(folder / "reward_model")
    means = heldout_means(
        learners, len(heldout), lambda index: collate_pairs(tokenizer, [heldout[i] for i in index]), num_pairs
    )
    figures = means | {"num_records": len(train), "num_cut_pairs": num_cut}
    if not num_cut:
        return figures
    note = (
        f"{num_cut} of {len(train) + len(heldout)} pairs are longer than reward.max_tokens={max_tokens}: "
        f"their prompts lost their beginning, or answers that do not fit even alone their end."
    )
    return figures | {"notes": [note]}
