"""What an update measures of single tokens: flat on its way, and the same however the rows were dealt out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

FIRST = "first_"
"""Before the name of what is measured as an update begins: a statistic of its first optimizer step alone, before
anything has moved; a token's of its first epoch. Other statistics are of all, other tokens' of the last epoch."""


@dataclass(frozen=True)
class TokenMeasures:
    """Of a micro-batch.

    Attributes:
        mask: bool [b, T], the tokens measured.
        values: name -> [b, T], without gradient.
    """

    mask: Tensor
    values: Mapping[str, Tensor]


class TokenRows(NamedTuple):
    """One number of each measured token of rows of a batch, flat.

    Attributes:
        rows: int64 [n], the index of each row in the batch; each once, in any order.
        lengths: int64 [n], how many of its tokens were measured.
        values: float32 [sum of lengths]: row after row, of each its measured tokens in order.
    """

    rows: NDArray[np.int64]
    lengths: NDArray[np.int64]
    values: NDArray[np.float32]

    def of_each(self, num_rows: int) -> list[NDArray[np.float32]]:
        """The tokens' numbers of each row of a batch of so many; empty of those that were not measured."""
        found = [np.empty(0, np.float32)] * num_rows
        parts = np.split(self.values, np.cumsum(self.lengths)[:-1])
        for row, part in zip(self.rows.tolist(), parts, strict=True):
            found[row] = part
        return found


class TokenLog:
    """What one rank measures of tokens in an update: by its name, of the first epoch or the last."""

    def __init__(self, num_epochs: int) -> None:
        self.epoch, self._last = 0, num_epochs - 1
        self._parts: dict[str, list[TokenRows]] = {}

    def add(self, rows: NDArray[np.int64], measured: TokenMeasures | None) -> None:
        """Take down a micro-batch of `epoch`, whose rows are these of the batch."""
        if measured is None:
            return
        for name, values in measured.values.items():
            if self.epoch == (0 if name.startswith(FIRST) else self._last):
                lengths = measured.mask.sum(dim=1).cpu().numpy()
                flat = values[measured.mask].float().cpu().numpy()
                self._parts.setdefault(name, []).append(TokenRows(rows, lengths, flat))

    def joined(self) -> dict[str, TokenRows]:
        """By name, all rows of this rank."""
        return {name: join_tokens(parts) for name, parts in self._parts.items()}


def join_tokens(parts: Sequence[TokenRows]) -> TokenRows:
    """Of several micro-batches, or of several ranks."""
    return TokenRows(*map(np.concatenate, zip(*parts, strict=True)))


def join_ranks(ranks: Iterable[Mapping[str, TokenRows]]) -> dict[str, TokenRows]:
    """What all ranks measured, by name."""
    parts: dict[str, list[TokenRows]] = {}
    for rank in ranks:
        for name, rows in rank.items():
            parts.setdefault(name, []).append(rows)
    return {name: join_tokens(found) for name, found in parts.items()}
