"""Padding may stand on either side of a row: a model is given each row's real tokens first all the same."""

import torch
from torch import Tensor


def real_tokens_first(attention_mask: Tensor) -> Tensor:
    """Columns [B, W] of each row's real tokens in their order, then of padding; W is the most real tokens of a row.

    Gathered by them, rows begin at a model's first position, absolute or not, and no column is padding alone.

    Args:
        attention_mask: [B, T], True or 1 on real tokens.
    """
    is_padding = attention_mask == 0
    width = attention_mask.shape[1] - int(is_padding.sum(dim=1).min())
    return is_padding.to(torch.uint8).argsort(dim=1, stable=True)[:, :width]


def columns_in_use(attention_mask: Tensor) -> Tensor:
    """bool [T]: the columns in which any row of [B, T] has a real token; the first one if none has."""
    used = (attention_mask != 0).any(dim=0)
    used[0] |= ~used.any()
    return used
