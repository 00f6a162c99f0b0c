"""What this machine computes in a second (MachineRates): products in a model's shapes, and bytes that it reads."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch

from plumbob.configs.base import Dtype
from plumbob.models.sizes.config_sizes import ModelSizes

MEASURED_S = 0.06
"""Of each shape, after one product that is not counted."""

NUM_TOKENS, WIDEST = 1024, 4096
"""Rows of a product, and most of its other sides: so that one takes 35 GFLOP at most."""

READ_BYTES = 2**26
"""Larger than what processors keep beside their cores."""


@dataclass(frozen=True)
class ProductRates:
    """Of one model on this machine, with all cores that torch takes.

    Attributes:
        per_s: operations of its matrix products in the numbers that it is computed in.
        single_per_s: the same in float32.
    """

    per_s: float
    single_per_s: float

    def shared(self, share: float) -> "ProductRates":
        """With that share of the cores."""
        return ProductRates(share * self.per_s, share * self.single_per_s)


class MachineRates:
    """Measured when they are first asked for, each in a tenth of a second."""

    @property
    def num_threads(self) -> int:
        """That all of it is measured with."""
        return torch.get_num_threads()

    def products(self, sizes: ModelSizes, dtype: Dtype) -> ProductRates:
        """In the shape of a model's feed-forward layers, where most of its weights are."""
        shape = (min(WIDEST, sizes.hidden_size), min(WIDEST, sizes.intermediate_size))
        single = _products_per_s(*shape, "float32")
        return ProductRates(single if dtype == "float32" else _products_per_s(*shape, dtype), single)

    def read_bytes(self) -> float:
        """That a product with one row reads in a second."""
        return _read_per_s()


@cache
def _products_per_s(width: int, inner: int, dtype: Dtype) -> float:
    given, weight = (torch.ones(*shape, dtype=getattr(torch, dtype)) for shape in ((NUM_TOKENS, width), (inner, width)))
    return 2 * NUM_TOKENS * width * inner / _fastest_s(partial(torch.nn.functional.linear, given, weight))


@cache
def _read_per_s() -> float:
    rows = 2**12
    matrix, vector = torch.ones(READ_BYTES // 4 // rows, rows), torch.ones(rows)
    return READ_BYTES / _fastest_s(partial(torch.mv, matrix, vector))


def _fastest_s(work: Callable[[], Any]) -> float:
    """What disturbs one only makes it slower."""
    with torch.no_grad():
        work()
        fastest, end = float("inf"), time.monotonic() + MEASURED_S
        while time.monotonic() < end:
            began = time.perf_counter()
            work()
            fastest = min(fastest, time.perf_counter() - began)
    return fastest
