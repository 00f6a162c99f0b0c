"""Whether two measurements differ by more than their noise: paired where they can be, and honest about many at once.

Of each measurement (`MeasuredMetric`) as much is used as is known of it:

- values by prompt of both, with enough prompts in common: the differences on those prompts, paired, by Student's t
  (n - 1 degrees of freedom). The samples of a prompt are averaged before, so that each prompt counts once;
- values by prompt of both on other prompts, or values with their standard errors over so many prompts: Welch's t, with
  Welch's and Satterthwaite's degrees of freedom;
- a value alone, or of fewer than `MIN_PROMPTS`: nothing can be said of its noise, and nothing is.

Values without any spread, such as the rewards of a rule that all prompts pass, tell no interval: 5 of 5 are no proof of
all. How seldom chance orders them so is known all the same: the p-value is that of the permutation test.

Intervals are 95%, each for itself. Of many metrics some differ by chance: "larger than the noise" are those that
Holm's step-down procedure (1979) leaves at a family-wise error of 5%, over all differences looked at together.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from plumbob.core.noise.student_t import t95, two_sided_p

Method = Literal["paired", "unpaired", "intervals", "none"]
"""How a difference was judged: by prompts that both have, by prompts of their own, by both standard errors, not."""

FAMILY_ERROR = 0.05
"""The chance that one or more of the differences called larger than the noise are none."""

MIN_PROMPTS = 5
"""Below this a spread over prompts tells too little."""

ROUNDING = 1e-9
"""Of a difference, the share that its error must be above to be more than the rounding of sums."""

MIN_SHARED = 0.5
"""Of the prompts of the one that has fewer, the share that both must have for the difference to be paired."""


@dataclass(frozen=True)
class MeasuredMetric:
    """One metric of one run.

    Attributes:
        value: what is shown.
        error: its standard error; None where that is not known.
        num_prompts: prompts, or pairs, that it is the mean over; 0 where that is not known.
        by_prompt: prompt -> its own value, the mean of its samples; empty where only the mean is known.
    """

    value: float
    error: float | None = None
    num_prompts: int = 0
    by_prompt: Mapping[str, float] = field(default_factory=dict, hash=False)

    @classmethod
    def of_prompts(cls, by_prompt: Mapping[str, float]) -> "MeasuredMetric":
        """The mean over prompts. Raises ValueError without any."""
        values = _array(by_prompt)
        if not len(values):
            raise ValueError("expected the values of one prompt or more, found none")
        error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
        return cls(float(values.mean()), error, len(values), by_prompt)

    @property
    def ci95(self) -> tuple[float, float] | None:
        """Its own 95% interval; None where its error is not known."""
        if self.error is None:
            return None
        half = t95(self.num_prompts - 1 if self.num_prompts > 1 else math.inf) * self.error
        return self.value - half, self.value + half


@dataclass(frozen=True)
class Difference:
    """A measurement less that of a baseline.

    Attributes:
        low, high: its 95% interval; None where the noise is not known, or the values have no spread.
        p: of a difference at least so large were there none; None where the noise is not known.
        num_prompts: that it was paired over; 0 elsewhere.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None
    method: Method
    num_prompts: int = 0


def difference(measured: MeasuredMetric, baseline: MeasuredMetric) -> Difference:
    """`measured` less `baseline`, by the best that is known of both."""
    shared = sorted(measured.by_prompt.keys() & baseline.by_prompt.keys())
    fewest = min(len(measured.by_prompt), len(baseline.by_prompt))
    if len(shared) >= max(MIN_PROMPTS, MIN_SHARED * fewest):
        gaps = np.array([measured.by_prompt[prompt] - baseline.by_prompt[prompt] for prompt in shared])
        num, error = len(gaps), float(gaps.std(ddof=1) / math.sqrt(len(gaps)))
        return _by_error(float(gaps.mean()), error, num - 1, "paired", 2.0 ** (1 - num), num)
    value, sizes = measured.value - baseline.value, (measured.num_prompts, baseline.num_prompts)
    if measured.error is None or baseline.error is None or min(sizes) < MIN_PROMPTS:
        return Difference(value, None, None, None, "none")
    squares = measured.error**2, baseline.error**2
    spread = sum(square**2 / (size - 1) for square, size in zip(squares, sizes, strict=True))
    degrees = sum(squares) ** 2 / spread if spread else math.inf
    method: Method = "unpaired" if fewest else "intervals"
    log_ways = math.lgamma(sum(sizes) + 1) - sum(math.lgamma(size + 1) for size in sizes)
    return _by_error(value, math.sqrt(sum(squares)), degrees, method, 2 * math.exp(-log_ways))


def larger_than_noise(differences: Sequence[Difference]) -> list[bool]:
    """Of each, whether it is; False also where its noise is not known. By Holm's procedure over those that have a p.

    The smallest of m p-values is compared with 0.05 / m, the next with 0.05 / (m - 1), and so on; the first that is
    above its bound ends it.
    """
    order = sorted((p, index) for index, one in enumerate(differences) if (p := one.p) is not None)
    found = [False] * len(differences)
    for rank, (p, index) in enumerate(order):
        if p > FAMILY_ERROR / (len(order) - rank):
            break
        found[index] = True
    return found


def _by_error(
    value: float, error: float, degrees: float, method: Method, p_without_spread: float, num_prompts: int = 0
) -> Difference:
    """By Student's t; `p_without_spread` is the permutation test's, where the values of either side are all alike."""
    if error <= ROUNDING * abs(value):
        if value == 0:
            return Difference(0.0, 0.0, 0.0, 1.0, method, num_prompts)
        return Difference(value, None, None, p_without_spread, method, num_prompts)
    half = t95(degrees) * error
    return Difference(value, value - half, value + half, two_sided_p(value / error, degrees), method, num_prompts)


def _array(by_prompt: Mapping[str, float]) -> NDArray[np.float64]:
    return np.array(list(by_prompt.values()), np.float64)
