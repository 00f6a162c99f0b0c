"""How a policy compares with a baseline on the same prompts: gains, win rates and KL, each with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959964
"""Of a two-sided 95% interval of the normal distribution."""


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% interval."""

    mean: float
    low: float
    high: float

    @property
    def ci95(self) -> list[float]:
        return [self.low, self.high]


@dataclass(frozen=True)
class Comparison:
    """A policy against a baseline on the same prompts.

    Attributes:
        gain: mean of score - baseline's score, paired by prompt.
        win_rate: share of prompts won; a tie is half a win.
    """

    gain: Interval
    win_rate: Interval


def mean_interval(values: Sequence[float] | NDArray[np.float64]) -> Interval:
    """Mean and its 95% interval by the central limit theorem; the values are independent draws.

    Raises:
        ValueError: fewer than two values, of which no spread can be computed.
    """
    array = np.asarray(values, dtype=np.float64)
    if len(array) < 2:
        raise ValueError(f"an interval needs at least 2 values, given {len(array)}")
    half = Z95 * array.std(ddof=1) / np.sqrt(len(array))
    mean = float(array.mean())
    return Interval(mean, mean - float(half), mean + float(half))


def compare(scores: NDArray[np.float64], baseline: NDArray[np.float64]) -> Comparison:
    """Scores [prompts, samples] of both on the same prompts; each prompt counts once, so its samples are averaged.

    A prompt's win rate is the share of pairs (a sample of one, a sample of the other) that the policy wins.
    """
    margins = scores[:, :, None] - baseline[:, None, :]
    wins = (np.sign(margins) + 1) / 2
    return Comparison(mean_interval(margins.mean(axis=(1, 2))), mean_interval(wins.mean(axis=(1, 2))))


def proportion_interval(num_correct: float, num: int) -> Interval:
    """A share with Wilson's 95% interval (Wilson 1927), which stays within [0, 1]."""
    share = num_correct / num
    centre = (share + Z95**2 / (2 * num)) / (1 + Z95**2 / num)
    half = Z95 / (1 + Z95**2 / num) * np.sqrt(share * (1 - share) / num + Z95**2 / (4 * num**2))
    return Interval(share, float(centre - half), float(centre + half))


def calibration_error(margins: NDArray[np.float64], num_bins: int = 10) -> float:
    """Expected calibration error of P(chosen wins) = sigmoid(margin), over both orders of every pair.

    In equal bins of predicted probability: the mean |predicted - observed|, weighted by the bin's share
    (Naeini et al. 2015). Both orders are counted, since which response stands first means nothing.
    """
    both = np.exp(-np.logaddexp(0.0, -np.concatenate([margins, -margins])))  # sigmoid, without overflow
    observed = np.concatenate([np.ones(len(margins)), np.zeros(len(margins))])
    bins = np.minimum((both * num_bins).astype(int), num_bins - 1)
    error = 0.0
    for number in range(num_bins):
        inside = bins == number
        if inside.any():
            error += inside.mean() * abs(both[inside].mean() - observed[inside].mean())
    return float(error)


def pass_at_k(num_right: NDArray[np.int64], num_samples: int, k: int) -> NDArray[np.float64]:
    """The chance that of k samples to a prompt one is right, from `num_samples` of which `num_right` [prompts] are.

    1 - C(n - c, k) / C(n, k), the mean over all choices of k from the n (Chen et al. 2021, arXiv 2107.03374), as the
    product of 1 - k / i for i from n - c + 1 to n, which does not overflow. [prompts]

    Raises:
        ValueError: k is none of 1 to n.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"pass@{k} is estimated from {k} samples or more, given {num_samples}")
    wrong = num_samples - num_right
    chances = [1.0 - np.prod(1.0 - k / np.arange(each + 1, num_samples + 1)) if each >= k else 1.0 for each in wrong]
    return np.array(chances, dtype=np.float64)
