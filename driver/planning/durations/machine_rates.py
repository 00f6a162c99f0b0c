"""What this machine computes in a second (MachineRates): products, element by element, and bytes that it reads.

Each is measured by one thread in the CPU time that it takes, and taken times the threads: other processes that want
the same cores hardly change it, and so it is what an idle machine computes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch.nn import functional

from plumbob.configs.base import Dtype
from plumbob.models.sizes.config_sizes import ModelSizes

MEASURED_S, MOST_TIMES = 0.06, 50
"""Of CPU time for each rate, and how often at most; what disturbs one only makes it slower."""

NUM_TOKENS, WIDEST = 512, 2048
"""Rows of a product, and most of its other sides: so that one takes 4 GFLOP at most."""

ELEMENTS = (256, 512)
"""Of the arrays that are computed element by element: they stay in the cache of a core, as parts of larger ones do."""

READ_BYTES = 2**26
"""Larger than what processors keep beside their cores."""

MOST_READERS = 16
"""Threads that together read about as many times as much as one."""


@dataclass(frozen=True)
class ComputeRates:
    """What a number of threads compute in a second.

    Attributes:
        products: multiplications and additions of matrix products.
        elements: of an activation, times a second array.
    """

    products: float
    elements: float


class MachineRates:
    """Measured when they are first asked for, each in a tenth of a second."""

    @property
    def num_threads(self) -> int:
        """Cores that there are for a run."""
        return torch.get_num_threads()

    def computing(self, sizes: ModelSizes, dtype: Dtype, num_threads: int) -> ComputeRates:
        """Products in the shape of a model's feed-forward layers, where most of its weights are."""
        shape = (min(WIDEST, sizes.hidden_size), min(WIDEST, sizes.intermediate_size))
        return ComputeRates(num_threads * _products_per_s(*shape, dtype), num_threads * _elements_per_s())

    def reading(self, num_threads: int) -> float:
        """Bytes."""
        return min(MOST_READERS, num_threads) * _read_per_s()


@cache
def _products_per_s(width: int, inner: int, dtype: Dtype) -> float:
    given, weight = (torch.ones(*shape, dtype=getattr(torch, dtype)) for shape in ((NUM_TOKENS, width), (inner, width)))
    return 2 * NUM_TOKENS * width * inner / _fastest_s(partial(functional.linear, given, weight))


@cache
def _elements_per_s() -> float:
    array = torch.ones(ELEMENTS)
    return array.numel() / _fastest_s(lambda: functional.silu(array) * array)


@cache
def _read_per_s() -> float:
    rows = 2**12
    matrix, vector = torch.ones(READ_BYTES // 4 // rows, rows), torch.ones(rows)
    return READ_BYTES / _fastest_s(partial(torch.mv, matrix, vector))


def _fastest_s(work: Callable[[], Any]) -> float:
    """By this thread alone, after one time that is not counted."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            work()
            fastest, end = float("inf"), time.thread_time() + MEASURED_S
            for _ in range(MOST_TIMES):
                began = time.thread_time()
                work()
                now = time.thread_time()
                fastest = min(fastest, now - began)
                if now > end:
                    break
    finally:
        torch.set_num_threads(num_threads)
    return max(fastest, 1e-9)
