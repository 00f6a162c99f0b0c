"""How far maximum likelihood on sampled preferences may lie from the truth: Fisher information, in float64.

`wins` [K, K]: how often response i was preferred to j. Scores [K] are known up to a constant, so that an information
matrix has rank K - 1 and annihilates constants. Bradley-Terry's maximum likelihood is
`pair_scores(wins, logistic())`, and DPO's is `dpo_optimum(reference, wins, beta)`.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from plumbob.verify.optima.offline_optima import logistic, minimise, pair_loss
from plumbob.verify.optima.response_tree import Array

Rankings = NDArray[np.int64]


def bradley_terry_information(wins: Array, scores: Array) -> Array:
    """Fisher information of Bradley-Terry scores, [K, K]: the Laplacian of n_ij p_ij (1 - p_ij), n_ij = both orders."""
    return wins.sum() * pair_loss(wins, scores, logistic())[2]


def fisher_error(scores: Array, truth: Array, information: Array) -> float:
    """d' I d, d = scores - truth: for maximum likelihood about chi-squared with K - 1 degrees of freedom."""
    difference = scores - truth
    return float(difference @ information @ difference)


def all_rankings(num_responses: int, size: int) -> Rankings:
    """Every ranking, best first, of every set of `size` of the responses, [N, size]."""
    return np.array(list(itertools.permutations(range(num_responses), size)), dtype=np.int64)


def plackett_luce_logprobs(scores: Array, rankings: Rankings) -> Array:
    """log of prod_t exp(h_t) / sum_{s >= t} exp(h_s) (Luce 1959; Plackett 1975) of each ranking among its own, [N]."""
    ranked = scores[rankings]
    stages = range(rankings.shape[1])
    return np.sum([ranked[:, t] - np.logaddexp.reduce(ranked[:, t:], axis=1) for t in stages], axis=0)


class Choice(NamedTuple):
    """One response taken among several, in each of N rankings or comparisons.

    Attributes:
        chosen: its index, [N].
        among: the indices of all of them, itself too, [N, size].
    """

    chosen: NDArray[np.int64]
    among: NDArray[np.int64]


def stages(rankings: Rankings) -> list[Choice]:
    """A ranking as choices: the best first, then the best of those left."""
    return [Choice(rankings[:, t], rankings[:, t:]) for t in range(rankings.shape[1])]


def choices_loss(choices: Sequence[Choice], counts: Array, scores: Array) -> tuple[float, Array, Array]:
    """Negative log-likelihood of exp(h) / sum exp(h) for each choice (Luce 1959), its gradient [K] and Hessian [K, K].

    Args:
        counts: how often each was given, [N].
    """
    value, gradient, hessian = 0.0, np.zeros(len(scores)), np.zeros((len(scores), len(scores)))
    for chosen, among in choices:
        logits = scores[among]
        sums = np.logaddexp.reduce(logits, axis=1)
        probs = np.exp(logits - sums[:, None])
        value += float(counts @ (sums - scores[chosen]))
        np.subtract.at(gradient, chosen, counts)
        np.add.at(gradient, among, counts[:, None] * probs)
        np.add.at(hessian, (among, among), counts[:, None] * probs)
        pairs = counts[:, None, None] * probs[:, :, None] * probs[:, None, :]
        np.subtract.at(hessian, (among[:, :, None], among[:, None, :]), pairs)
    return value, gradient, hessian


def plackett_luce_loss(rankings: Rankings, counts: Array, scores: Array) -> tuple[float, Array, Array]:
    """Negative log-likelihood, its gradient [K] and Hessian [K, K]; the Hessian is also the observed information.

    Args:
        rankings: responses' indices, best first, [N, size].
        counts: how often each ranking was given, [N].
    """
    return choices_loss(stages(rankings), counts, scores)


def choices_scores(choices: Sequence[Choice], counts: Array, num_responses: int) -> Array:
    """Maximum-likelihood scores of mean 0, [K]. Where no finite ones exist, ArithmeticError or ValueError."""
    scores = minimise(lambda at: choices_loss(choices, counts / counts.sum(), at), np.zeros(num_responses))
    return scores - scores.mean()


def plackett_luce_scores(rankings: Rankings, counts: Array, num_responses: int) -> Array:
    return choices_scores(stages(rankings), counts, num_responses)


def chi_squared_point(degrees: int, probability: float = 0.999) -> float:
    """x such that a chi-squared variable of so many degrees is below x with this probability, within 1e-9."""
    low, high = 0.0, degrees + 20 * math.sqrt(2.0 * degrees) + 50
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if lower_gamma(degrees / 2, middle / 2) < probability else (low, middle)
    return (low + high) / 2


def lower_gamma(a: float, x: float) -> float:
    """Regularised lower incomplete gamma function by its series x^a e^-x sum x^n / Gamma(a + n + 1) (DLMF 8.11.4)."""
    if x <= 0:
        return 0.0
    term = total = 1.0
    n = 0
    while term > 1e-17 * total:
        n += 1
        term *= x / (a + n)
        total += term
    return total * math.exp(a * math.log(x) - x - math.lgamma(a + 1))
