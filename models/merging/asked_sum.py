"""Which weighted sums of adapters there are (`SUM_KINDS`), and what is asked of one (`WeightedSum`); without torch."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from plumbob.core.errors import UserError

SumKind = Literal["sum", "linear", "ties", "dare_linear", "dare_ties"]
"""What each of them computes: `models/merging/weighted_sums.py`."""

SUM_KINDS: tuple[SumKind, ...] = get_args(SumKind)

SPARSE: tuple[SumKind, ...] = ("ties", "dare_linear", "dare_ties")
"""Those that set numbers to 0."""


@dataclass(frozen=True)
class WeightedSum:
    """What is to be summed.

    Attributes:
        weights: of the adapters, in their order.
        density: share of the numbers that SPARSE kinds keep; None of others.
        seed: of the numbers that DARE keeps.
    """

    how: SumKind
    weights: tuple[float, ...]
    density: float | None = None
    seed: int = 0

    def check(self, num_adapters: int) -> None:
        """Raises UserError when that cannot be summed."""
        if len(self.weights) != num_adapters:
            raise UserError(
                f"--weights: {len(self.weights)} are given for {num_adapters} adapters; give one for each, in their "
                f"order"
            )
        if not all(math.isfinite(weight) for weight in self.weights):
            raise UserError(f"--weights={' '.join(map(str, self.weights))}: expected numbers")
        if self.how != "sum" and num_adapters < 2:
            raise UserError(f"--how={self.how}: is of two adapters or more; --how=sum scales a single one")
        if (self.density is not None) != (self.how in SPARSE):
            is_for = f"is for --how={', '.join(SPARSE)}" if self.density is not None else "is needed"
            raise UserError(f"--how={self.how}: --density, the share of numbers that are kept, {is_for}")
        if self.density is not None and not 0 < self.density < 1:
            raise UserError(f"--density={self.density:g}: expected a share between 0 and 1, neither of them included")
