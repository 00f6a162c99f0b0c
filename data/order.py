"""The seeded order in which records are used: every one once an epoch, each place found by its number alone."""

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
    """Places [start, start + count) of the endless row of epochs, each in its own order. int64 [count]."""
    if num_records < 1 or count < 1:
        raise ValueError(f"an order has at least one record and one place, given {num_records} and {count}")
    first, last = start // num_records, (start + count - 1) // num_records
    offset = start - first * num_records
    row = np.concatenate([epoch_order(num_records, epoch, seed) for epoch in range(first, last + 1)])
    return row[offset : offset + count]
