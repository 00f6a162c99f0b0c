"""Statistics of a whole batch whose rows lie on several ranks: what each knows of its own rows, gathered from all."""

from typing import Protocol

import torch
from torch import Tensor


class WholeBatch(Protocol):
    """The batch that this rank's rows are a part of: B rows in blocks of b, in the order of the ranks.

    All ranks call the same methods in the same order. What is gathered is the same on each of them, and does not depend
    on how many there are; so neither does what is computed of it.
    """

    def gather(self, own: Tensor) -> Tensor:
        """Numbers of this rank's rows, [b, ...] -> those of all rows of the batch, [B, ...]."""

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
    """Mean over the batch's True cells of `mask`, [b] or [b, T]; 0 where there are none. float32."""
    cells = torch.where(mask, x.double(), 0.0).reshape(len(x), -1)
    sums = torch.stack([cells.sum(dim=1), mask.reshape(len(x), -1).sum(dim=1).double()], dim=1)
    total, count = batch.gather(sums).sum(dim=0)
    return (total / count.clamp(min=1)).float()


def masked_variance(x: Tensor, mask: Tensor, batch: WholeBatch = ONE_RANK) -> Tensor:
    """Variance over the batch's True cells of `mask`, divided by their number; 0 where there are none. float32."""
    return masked_mean((x - masked_mean(x, mask, batch)).square(), mask, batch)
