"""The seeded order in which records are used: once an epoch, or by mixture weights; a position tells its record."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


@lru_cache(maxsize=8)
def epoch_order(num_records: int, epoch: int, seed: int) -> NDArray[np.int64]:
    """The order of one epoch: a permutation of [0, num_records) that the seed and the epoch's number decide."""
    order = np.random.default_rng([seed, epoch]).permutation(num_records)
    order.setflags(write=False)  # The cache hands the same array to everyone.
    return order


def endless_order(num_records: int, start: int, count: int, seed: int) -> NDArray[np.int64]:
    """Positions [start, start + count) of the endless row of epochs, each in its own order. int64 [count]."""
    return _positions(lambda epoch: epoch_order(num_records, epoch, seed), num_records, start, count)


@dataclass(frozen=True)
class Mixture:
    """Records of several files, numbered one file after the other, each file with its share of every epoch.

    An epoch has as many slots as there are records, and each file the same number of them in every epoch. Which they
    are the seed and the epoch's number decide. At its slots a file's records come in an endless row of epochs of their
    own, over all epochs of the run: none is used again before all of its file have been used as often.

    Attributes:
        sizes: records of each file.
        weights: of each file.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def num_records(self) -> int:
        return sum(self.sizes)

    @cached_property
    def num_slots(self) -> tuple[int, ...]:
        """Of each file: its share by weight, where that is no whole number the next lower one, and of the slots that
        are left one to each of the largest remainders (Hamilton's method)."""
        exact = np.array(self.weights) * (self.num_records / sum(self.weights))
        slots = np.floor(exact).astype(np.int64)
        left = self.num_records - int(slots.sum())
        slots[np.argsort(slots - exact, kind="stable")[:left]] += 1
        return tuple(slots.tolist())

    def cut(self, records: Sequence[T]) -> list[Sequence[T]]:
        """The records of each file."""
        stops = np.cumsum(self.sizes).tolist()
        return [records[stop - size : stop] for size, stop in zip(self.sizes, stops, strict=True)]


@lru_cache(maxsize=8)
def mixed_order(mixture: Mixture, epoch: int, seed: int) -> NDArray[np.int64]:
    """The order of one epoch, int64 [num_records]: not all records of a large file, those of a small one repeated."""
    owners = np.repeat(np.arange(len(mixture.sizes)), mixture.num_slots)
    owners = owners[epoch_order(mixture.num_records, epoch, seed)]
    order = np.empty(mixture.num_records, dtype=np.int64)
    first = 0
    for file, (size, slots) in enumerate(zip(mixture.sizes, mixture.num_slots, strict=True)):
        own = endless_order(size, epoch * slots, slots, _seed_of(file, seed))
        order[owners == file] = first + own
        first += size
    order.setflags(write=False)
    return order


def endless_mixture(mixture: Mixture, start: int, count: int, seed: int) -> NDArray[np.int64]:
    """Positions [start, start + count) of the endless row of a mixture's epochs. int64 [count]."""
    return _positions(lambda epoch: mixed_order(mixture, epoch, seed), mixture.num_records, start, count)


@dataclass(frozen=True)
class EpochBatches:
    """Batches of record indices over a number of epochs, each found by its step alone.

    The epochs follow one another without a gap, so a batch may hold the end of one and the beginning of the next. Every
    batch has exactly `batch_size` indices; the last one is completed from the order of one more epoch.

    Attributes:
        mixture: how the files are weighted that the records are of; None uses every record once an epoch.
    """

    num_records: int
    batch_size: int
    num_epochs: int
    seed: int
    mixture: Mixture | None = None

    @property
    def num_batches(self) -> int:
        return -(-self.num_records * self.num_epochs // self.batch_size)

    def batch_at(self, step: int) -> NDArray[np.int64]:
        """The indices of step 0, 1, ..., num_batches - 1. int64 [batch_size]."""
        if not 0 <= step < self.num_batches:
            raise IndexError(f"step {step} is outside the {self.num_batches} steps of {self.num_epochs} epochs")
        return _positions(self._order, self.num_records, step * self.batch_size, self.batch_size)

    def first_steps(self, records: NDArray[np.int64]) -> list[int]:
        """The steps of the first epoch that have any of these records."""
        slots = np.flatnonzero(np.isin(self._order(0), records))
        return sorted(set((slots // self.batch_size).tolist()))

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self.mixture is None:
            return epoch_order(self.num_records, epoch, self.seed)
        return mixed_order(self.mixture, epoch, self.seed)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return map(self.batch_at, range(self.num_batches))


def _positions(
    order_of: Callable[[int], NDArray[np.int64]], num_records: int, start: int, count: int
) -> NDArray[np.int64]:
    """[start, start + count) of the endless row of epochs of `num_records` each."""
    if num_records < 1 or count < 1:
        raise ValueError(f"an order has at least one record and one position, given {num_records} and {count}")
    first, last = start // num_records, (start + count - 1) // num_records
    offset = start - first * num_records
    row = np.concatenate([order_of(epoch) for epoch in range(first, last + 1)])
    return row[offset : offset + count]


def _seed_of(file: int, seed: int) -> int:
    """Of the order of one file's records."""
    return int(np.random.SeedSequence([seed, file + 1]).generate_state(1, np.uint64)[0])
