"""Statistics of a whole batch whose rows lie on several ranks: what each knows of its own rows, gathered from all."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class WholeBatch(Protocol):
    """The batch that this rank's rows are a part of: B rows in blocks of b, in the order of the ranks.

    All ranks call the same methods in the same order. What is gathered is the same on each of them.
    """

    def gather(self, own: Tensor) -> Tensor:
        """Numbers of this rank's rows, [b, ...] -> those of all rows, [B, ...]; of sums [1, ...], a row a rank."""

    def own(self, whole: Tensor) -> Tensor:
        """Of numbers of all rows, [B, ...], those of this rank's, [b, ...]."""


class OneRankBatch:
    """A batch that lies on one rank."""

    def gather(self, own: Tensor) -> Tensor:
        return own

    def own(self, whole: Tensor) -> Tensor:
        return whole


ONE_RANK = OneRankBatch()


def masked_mean(x: Tensor, mask: Tensor, batch: WholeBatch = ONE_RANK) -> Tensor:
    """Mean over the batch's True cells of `mask`, [b] or [b, T]; 0 where there are none. float32, as sums are."""
    own = torch.stack([torch.where(mask, x.float(), 0.0).sum().double(), mask.sum().double()])
    total, count = batch.gather(own[None]).sum(dim=0)
    return (total / count.clamp(min=1)).float()


def masked_variance(x: Tensor, mask: Tensor, batch: WholeBatch = ONE_RANK) -> Tensor:
    """Variance over the batch's True cells of `mask`, divided by their number; 0 where there are none. Two passes."""
    return masked_mean((x - masked_mean(x, mask, batch)).square(), mask, batch)


def exact_mean(x: Tensor, mask: Tensor, batch: WholeBatch = ONE_RANK) -> float:
    """As `masked_mean`, summed up in float64."""
    cells = x[mask].numpy()
    own = torch.tensor([[cells.sum(dtype=np.float64), len(cells)]], dtype=torch.float64)
    total, count = batch.gather(own).sum(dim=0).tolist()
    return total / count if count else 0.0
