"""The seeded order in which records are used: every one once an epoch, each position found by its number alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=8)
def epoch_order(num_records: int, epoch: int, seed: int) -> NDArray[np.int64]:
    """The order of one epoch: a permutation of [0, num_records) that the seed and the epoch's number decide."""
    order = np.random.default_rng([seed, epoch]).permutation(num_records)
    order.setflags(write=False)  # The cache hands the same array to everyone.
    return order


def endless_order(num_records: int, start: int, count: int, seed: int) -> NDArray[np.int64]:
    """Positions [start, start + count) of the endless row of epochs, each in its own order. int64 [count]."""
    if num_records < 1 or count < 1:
        raise ValueError(f"an order has at least one record and one position, given {num_records} and {count}")
    first, last = start // num_records, (start + count - 1) // num_records
    offset = start - first * num_records
    row = np.concatenate([epoch_order(num_records, epoch, seed) for epoch in range(first, last + 1)])
    return row[offset : offset + count]


@dataclass(frozen=True)
class EpochBatches:
    """Batches of record indices over a number of epochs, each found by its step alone.

    The epochs follow one another without a gap, so a batch may hold the end of one and the beginning of the next. Every
    batch has exactly `batch_size` indices; the last one is completed from the order of one more epoch.
    """

    num_records: int
    batch_size: int
    num_epochs: int
    seed: int

    @property
    def num_batches(self) -> int:
        return -(-self.num_records * self.num_epochs // self.batch_size)

    def batch_at(self, step: int) -> NDArray[np.int64]:
        """The indices of step 0, 1, ..., num_batches - 1. int64 [batch_size]."""
        if not 0 <= step < self.num_batches:
            raise IndexError(f"step {step} is outside the {self.num_batches} steps of {self.num_epochs} epochs")
        return endless_order(self.num_records, step * self.batch_size, self.batch_size, self.seed)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return map(self.batch_at, range(self.num_batches))
