"""How many cases it takes to see a difference, and how small a one so many cases show: paired, two-sided, 5%, 80%."""

import math

from plumbob.core.statistics import Z95

Z80 = 0.841621
"""What a standard normal number exceeds with probability 0.2: a true difference is seen in 80 of 100 repetitions."""


def cases_needed(spread: float, difference: float) -> int | None:
    """((z_0.975 + z_0.8) spread / difference)^2, at least 2; None where there is no difference to be seen.

    Args:
        spread: standard deviation of the cases' own differences.
    """
    if difference == 0:
        return None
    return max(2, math.ceil(((Z95 + Z80) * spread / difference) ** 2))


def smallest_seen(spread: float, num_cases: int) -> float:
    """The difference that so many cases show: that of which `cases_needed` is their number."""
    return (Z95 + Z80) * spread / math.sqrt(num_cases)
