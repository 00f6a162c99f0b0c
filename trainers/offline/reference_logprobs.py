"""A reference's log-probs of records that are met more than once: computed once, since the reference never changes."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

BLOCK = 256
"""Records that are computed together."""

Compute = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Indices of records -> log-probs [n, ...]."""


class KeptLogprobs:
    """Computes a record's log-probs when they are first asked for, with those of the records beside it, and keeps them.

    Float32 sums depend in their last bits on what is computed together: that is a block of neighbours, whichever batch
    asked, so that a resumed run, which has kept nothing, computes the same bits.
    """

    def __init__(self, num_records: int, compute: Compute) -> None:
        self._num_records, self._compute = num_records, compute
        self._blocks: dict[int, NDArray[np.float32]] = {}

    def of(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Of the records at `index` [n], in that order."""
        for block in sorted({int(i) // BLOCK for i in index} - self._blocks.keys()):
            end = min((block + 1) * BLOCK, self._num_records)
            self._blocks[block] = self._compute(np.arange(block * BLOCK, end))
        return np.stack([self._blocks[int(i) // BLOCK][int(i) % BLOCK] for i in index])
