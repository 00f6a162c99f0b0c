"""Batches whose padding stands on the other side."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from plumbob.data.tokenization import PairBatch, TokenBatch
from plumbob.trainers.offline.reward_modelling.reward_batch import INPUT_NAMES, RewardBatch


def right_aligned(rows: NDArray[np.generic], attention_mask: NDArray[np.generic]) -> NDArray[np.generic]:
    """Rows [..., T] turned until their real tokens, which come first, are their last."""
    width = rows.shape[-1]
    shifts = width - attention_mask.astype(np.int64).sum(axis=-1, keepdims=True)
    return np.take_along_axis(rows, (np.arange(width) - shifts) % width, axis=-1)


def padded_on_the_left(batch: TokenBatch) -> TokenBatch:
    names = ("input_ids", "attention_mask", "loss_mask")
    return replace(batch, **{name: right_aligned(getattr(batch, name), batch.attention_mask) for name in names})


def pairs_padded_on_the_left(pairs: PairBatch) -> PairBatch:
    return PairBatch(padded_on_the_left(pairs.chosen), padded_on_the_left(pairs.rejected))


def judged_padded_on_the_left(batch: RewardBatch) -> RewardBatch:
    return replace(batch, **{name: right_aligned(getattr(batch, name), batch.attention_mask) for name in INPUT_NAMES})
