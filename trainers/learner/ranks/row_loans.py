"""Minibatches of rows that lie on several ranks in blocks: each computes as many of one, of which others lend it some.

```
 a minibatch, drawn from all rows:    7 2 0 3 | 1 5 ...        blocks: rank 0 has rows 0 to 3, rank 1 rows 4 to 7
 rank 0 has 2 0 3, of which it computes 2 0 and lends 3
 rank 1 has 7, computes it, and borrows 3
```

So minibatches are what they would be on one rank, and no rank waits for another that has more rows. What is lent is
sent once an update, by rows: of minibatches of which each rank computes m rows, about 0.4 / sqrt(m) of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from plumbob.data.batch import Batch
from plumbob.trainers.algorithms.whole_batch import WholeBatch
from plumbob.trainers.learner.engine import Rank
from plumbob.trainers.learner.learner_protocol import B
from plumbob.trainers.learner.micro_batches import Rows
from plumbob.trainers.learner.token_values import TokenRows, join_tokens


class RowExchange(WholeBatch, Protocol):
    """A batch whose ranks also send one another rows."""

    def exchange(self, parcels: Mapping[int, Any]) -> dict[int, Any]:
        """What this rank sends to others, by their numbers -> what they send it, by theirs. Collective."""


class HeldRows(NamedTuple, Generic[B]):
    """What a rank computes of in an update. Attributes: ids: int64 [n], the rows' indices in the batch, sorted."""

    batch: B
    ids: Rows


@dataclass(frozen=True)
class RowLoans:
    """Who computes which rows of an update.

    Attributes:
        rank: this one, of all.
        num_own: rows of each rank's block.
        shares: of each epoch, which rows each rank computes of each minibatch: int64 [ranks, minibatches, S / ranks].
    """

    rank: Rank
    num_own: int
    shares: Sequence[Rows]

    @classmethod
    def of(cls, rank: Rank, num_own: int, epochs: Sequence[Rows]) -> "RowLoans":
        """By the minibatches [M, S] of each epoch, of indices in the whole batch."""
        dealt = (
            np.stack([even_shares(minibatch, num_own, rank.world_size) for minibatch in epoch], axis=1)
            for epoch in epochs
        )
        return cls(rank, num_own, tuple(dealt))

    @property
    def own_shares(self) -> list[Rows]:
        """Of each epoch, what this rank computes of each minibatch, [M, S / ranks]."""
        return [epoch[self.rank.index] for epoch in self.shares]

    def borrowed(self, rank: int) -> Rows:
        """Rows that a rank computes and does not have, each once."""
        computed = np.unique(np.concatenate([epoch[rank].ravel() for epoch in self.shares]))
        return computed[computed // self.num_own != rank]

    def borrow(self, batch: B, ranks: RowExchange) -> HeldRows[B]:
        """This rank's rows of an update, beside those that others lend it. Collective."""
        first = self.rank.index * self.num_own
        parcels = {}
        for other in self._others():
            wanted = self.borrowed(other)
            lent = wanted[wanted // self.num_own == self.rank.index] - first
            if len(lent):
                parcels[other] = batch.rows(lent)
        found = {self.rank.index: batch} | ranks.exchange(parcels)
        borrowed = self.borrowed(self.rank.index)
        ids = np.sort(np.concatenate([np.arange(first, first + self.num_own), borrowed]))
        return HeldRows(joined([found[owner] for owner in sorted(found)]), ids)

    def hand_back(self, measured: Mapping[str, TokenRows], ranks: RowExchange) -> dict[str, TokenRows]:
        """What was measured of the rows that this rank computed -> of those that it has, by index here. Collective."""
        lenders = np.unique(self.borrowed(self.rank.index) // self.num_own).tolist()
        of_lenders = {
            lender: {name: _of_owner(rows, lender, self.num_own) for name, rows in measured.items()}
            for lender in lenders
            if measured
        }
        returned = ranks.exchange(of_lenders).values()
        return {
            name: join_tokens([_of_owner(rows, self.rank.index, self.num_own), *(other[name] for other in returned)])
            for name, rows in measured.items()
        }

    def _others(self) -> list[int]:
        return [other for other in range(self.rank.world_size) if other != self.rank.index]


def even_shares(minibatch: Rows, num_own: int, num_ranks: int) -> Rows:
    """A minibatch's rows [S], indices into blocks of `num_own` -> which each rank computes, [ranks, S / ranks].

    Each its own, in the minibatch's order, as far as its share goes; those that have too few take what is left over.
    """
    size = len(minibatch) // num_ranks
    own = [minibatch[minibatch // num_own == rank] for rank in range(num_ranks)]
    left = np.concatenate([rows[size:] for rows in own])
    wanted = np.cumsum([max(size - len(rows), 0) for rows in own])[:-1]
    return np.stack(
        [np.concatenate([rows[:size], more]) for rows, more in zip(own, np.split(left, wanted), strict=True)]
    )


def joined(batches: Sequence[B]) -> B:
    """The rows of all of them, one batch after the other; padded on the right with 0 to the widest."""
    if len(batches) == 1:
        return batches[0]
    arrays = zip(*map(_arrays, batches), strict=True)
    whole = map(_one_below_another, arrays)
    return batches[0].map_arrays(lambda _: next(whole))


def _arrays(batch: Batch) -> list[Any]:
    found: list[Any] = []

    def noted(values: Any) -> Any:
        found.append(values)
        return values

    batch.map_arrays(noted)
    return found


def _one_below_another(parts: Sequence[Any]) -> Any:
    tensors = [torch.as_tensor(part) for part in parts]
    if tensors[0].ndim > 1:
        width = max(part.shape[-1] for part in tensors)
        tensors = [functional.pad(part, (0, width - part.shape[-1])) for part in tensors]
    whole = torch.cat(tensors)
    return whole if isinstance(parts[0], Tensor) else whole.numpy()


def _of_owner(measured: TokenRows, owner: int, num_own: int) -> TokenRows:
    """Of the rows of one rank's block, by their indices in it."""
    is_owned = measured.rows // num_own == owner
    of_tokens = np.repeat(is_owned, measured.lengths)
    return TokenRows(measured.rows[is_owned] - owner * num_own, measured.lengths[is_owned], measured.values[of_tokens])
