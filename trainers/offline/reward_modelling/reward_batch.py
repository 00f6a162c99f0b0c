"""Human feedback as the reward model's input: encoded, padded, and turned into rewards."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plumbob.data.batch import Batch
from plumbob.data.records import Ranking, ScoredResponse
from plumbob.models.padding import real_tokens_first
from plumbob.reward.reward_models.bert_encoding import EncodedPair, encode_pairs, pad_pairs

INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")

FeedbackRecord = Ranking | ScoredResponse


@dataclass(frozen=True)
class RewardBatch(Batch):
    """Responses to the same prompts side by side, padded in tokens and, on the right, in responses.

    Attributes:
        input_ids, attention_mask, token_type_ids: int64 [B, K, T].
        response_mask: bool [B, K], False where a row has fewer responses than the longest.
        targets: float32 [B], a pair's margin or a response's score; 0 where there is neither.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    response_mask: NDArray[np.bool_]
    targets: NDArray[np.float32]

    def rows(self, index: NDArray[np.int64], /) -> Self:
        """Those rows, without columns that are padding alone; K stays, so that all rows' rewards make one array."""
        taken = super().rows(index)
        columns = taken.attention_mask.any(axis=(0, 1))
        return taken.map_arrays(lambda values: values[..., columns] if values.ndim == 3 else values)


@dataclass(frozen=True)
class CounterfactualBatch(Batch):
    """Responses, and beside each the same with another group's terms: where `others` has no response there is none.

    Attributes:
        own, others: of as many responses, which may differ in width.
    """

    own: RewardBatch
    others: RewardBatch

    def rows(self, index: NDArray[np.int64], /) -> Self:
        return replace(self, own=self.own.rows(index), others=self.others.rows(index))


class RewardModule(nn.Module):
    """The classifier as a function of positional tensors [B, T] -> rewards float32 [B]."""

    def __init__(self, classifier: Any, takes_types: bool) -> None:
        super().__init__()
        self.classifier = classifier
        self._takes_types = takes_types

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        columns = real_tokens_first(attention_mask)
        ids, attended, types = (x.gather(1, columns) for x in (input_ids, attention_mask, token_type_ids))
        named = {"token_type_ids": types} if self._takes_types else {}
        rewards: Tensor = self.classifier(input_ids=ids, attention_mask=attended, **named).logits
        return rewards.squeeze(-1).float()


def response_rewards(forward: Any, batch: RewardBatch) -> Tensor:
    """Raw rewards [B, K], all responses in one forward; 0 where there is no response."""
    rewards: Tensor = forward(*(torch.from_numpy(getattr(batch, name)[batch.response_mask]) for name in INPUT_NAMES))
    is_response = torch.from_numpy(batch.response_mask).to(rewards.device)
    return torch.zeros(is_response.shape, device=rewards.device).masked_scatter(is_response, rewards)


def paired_rewards(forward: Any, batch: CounterfactualBatch) -> tuple[Tensor, Tensor]:
    """Raw rewards [B, K] of the responses and of their counterfactuals, all in one forward; 0 where there is none."""
    sides = (batch.own, batch.others)
    width = max(side.input_ids.shape[2] for side in sides)
    inputs = []
    for name in INPUT_NAMES:
        of_sides = [getattr(side, name)[side.response_mask] for side in sides]
        wide = [np.pad(rows, ((0, 0), (0, width - rows.shape[1]))) for rows in of_sides]
        inputs.append(torch.from_numpy(np.concatenate(wide)))
    rewards: Tensor = forward(*inputs)
    masks = [torch.from_numpy(side.response_mask).to(rewards.device) for side in sides]
    split = rewards.split([int(mask.sum()) for mask in masks])
    own, others = (
        torch.zeros(mask.shape, device=rewards.device).masked_scatter(mask, part)
        for mask, part in zip(masks, split, strict=True)
    )
    return own, others


def encode_responses(
    tokenizer: Any, records: Sequence[FeedbackRecord], max_tokens: int
) -> list[tuple[EncodedPair, ...]]:
    """Every response with its prompt, cut to `max_tokens`, in the record's order."""
    encoded = iter(
        encode_pairs(tokenizer, [(r.prompt, response) for r in records for response in r.responses], max_tokens)
    )
    return [tuple(next(encoded) for _ in record.responses) for record in records]


def collate_responses(
    tokenizer: Any, rows: Sequence[Sequence[EncodedPair]], targets: Sequence[float] | None = None
) -> RewardBatch:
    """Encoded responses of each row; `targets` None is for what only asks for rewards."""
    padded = pad_pairs(tokenizer, [response for row in rows for response in row])
    num_responses = np.array([len(row) for row in rows])
    response_mask = np.arange(num_responses.max()) < num_responses[:, None]

    def spread(name: str, filler: int) -> NDArray[np.int64]:
        """Arrays [responses, T] at their places in [B, K, T]."""
        width = padded["input_ids"].shape[1]
        array = np.full((*response_mask.shape, width), filler, dtype=np.int64)
        if name in padded:
            array[response_mask] = padded[name].numpy()
        return array

    return RewardBatch(
        spread("input_ids", tokenizer.pad_token_id),
        spread("attention_mask", 0),
        spread("token_type_ids", 0),
        response_mask,
        np.zeros(len(rows), np.float32) if targets is None else np.array(targets, np.float32),
    )


def collate_counterfactuals(
    tokenizer: Any,
    rows: Sequence[Sequence[EncodedPair]],
    others: Sequence[Sequence[EncodedPair] | None],
    targets: Sequence[float],
) -> CounterfactualBatch:
    """`others`: of each row its counterfactual responses, or None where it has none."""
    own = collate_responses(tokenizer, rows, targets)
    is_there = np.array([other is not None for other in others])
    filled = [row if other is None else other for row, other in zip(rows, others, strict=True)]
    beside = collate_responses(tokenizer, filled, targets)
    absent = replace(
        beside,
        response_mask=beside.response_mask & is_there[:, None],
        attention_mask=beside.attention_mask * is_there[:, None, None],
    )
    return CounterfactualBatch(own, absent)


def target_of(record: FeedbackRecord) -> float:
    return record.margin if isinstance(record, Ranking) else record.score
