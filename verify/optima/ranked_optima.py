"""Where objectives end that rank a group of responses: the best of n learnt alone, and pairs of best and worst.

The responses of a group are drawn from the policy, so that who is ranked first and last follows it. Policies are
log-probs of whole responses. All in float64, in closed form: no group is listed.
"""

import numpy as np

from plumbob.verify.optima.offline_optima import minimise, pair_loss, squared
from plumbob.verify.optima.planted_bugs import PairTarget
from plumbob.verify.optima.response_tree import Array, Instance, log_normalised, tilted

TOLERANCE = 1e-12
MAX_STEPS = 5000
DAMPING = 0.3


def pair_mass(policy: Array, returns: Array, group_size: int) -> Array:
    """P(i is the best of a group, and j the worst), [K, K]; a group of equal returns has neither.

    All of a group lie in [r_j, r_i] with F[j..i]^n, F the mass of an interval of returns; with at least one at both
    ends: F[j..i]^n - F(j..i]^n - F[j..i)^n + F(j..i)^n. Of equal returns each is first by its share of their mass.

    Args:
        policy: log-probs of the responses to one prompt that are ranked, [K]; what is left to 1 is drawn too, and is
            not ranked: it lies in every interval.
        returns: by which they are ranked, [K].
    """
    levels, level = np.unique(returns, return_inverse=True)
    probs = np.exp(policy)
    mass = np.bincount(level, weights=probs)
    unranked = max(0.0, 1.0 - float(probs.sum()))
    below = np.concatenate([[0.0], np.cumsum(mass)])
    upto, start = below[1:, None], below[None, :-1]  # Of the best's level, and before the worst's.
    inside = below[:-1, None] - below[None, 1:]
    both_ends = (
        (upto - start + unranked) ** group_size
        - (upto - below[None, 1:] + unranked) ** group_size
        - (below[:-1, None] - start + unranked) ** group_size
        + (np.maximum(inside, 0.0) + unranked) ** group_size
    )
    ranks = np.arange(len(levels))
    of_levels = np.where(ranks[:, None] > ranks[None, :], both_ends, 0.0)
    share = probs / mass[level]
    pairs: Array = of_levels[level[:, None], level[None, :]] * share[:, None] * share[None, :]
    return pairs


def pair_masses(policy: Array, returns: Array, group_size: int) -> Array:
    """`pair_mass` of every prompt, [P, K, K], of [P, K]."""
    return np.stack([pair_mass(own, ranked, group_size) for own, ranked in zip(policy, returns, strict=True)])


def kl_returns(problem: Instance, policy: Array) -> Array:
    """r - beta log(pi / pi_ref) of whole responses, [P, K]: what they are ranked by with k1 in the reward.

    At pi* it is one number for all responses to a prompt, which is then no ranking: whatever is learnt of ranked groups
    has its fixed point there, and no other inside, since elsewhere what is ranked first is never ranked last.
    """
    return problem.rewards - problem.beta * (policy - problem.reference)


def ranked_pairs_optimum(problem: Instance, target: PairTarget, group_size: int) -> Array:
    """Fixed point of a loss of pairs of the policy's own best and worst, ranked by reward alone; log-probs [P, K].

    The policy at which the loss of the pairs that it gives itself is least. Damped iteration from the reference.

    Args:
        target: where the loss of given pairs ends.
    """
    policy = problem.reference
    for _ in range(MAX_STEPS):
        wins = pair_masses(policy, problem.rewards, group_size)
        rows = zip(problem.reference, wins, strict=True)
        aim = np.stack([target(reference, own, problem.tree.num_tokens) for reference, own in rows])
        if np.abs(aim - policy).max() < TOLERANCE:
            return aim
        policy = log_normalised(policy + DAMPING * (aim - policy))
    raise ArithmeticError("no fixed point of ranked pairs was reached: what is ranked first is held by nothing")


def ipo_of_ranked(tau: float) -> PairTarget:
    """IPO of summed log-ratios (Azar et al. 2023, arXiv 2310.12036, equation 17): least squares, also of a ranking."""

    def target(reference: Array, wins: Array, _: Array) -> Array:
        scores = minimise(lambda at: pair_loss(wins, at, squared(0.5 / tau)), np.zeros(len(wins)))
        return tilted(reference, scores, 1.0)

    return target


def ipo_pushes(log_ratios: Array, wins: Array, tau: float) -> Array:
    """Gradient of IPO's loss by the responses' log-probs, [P, K]: sum over pairs of 2 (u_i - u_j - 1 / (2 tau)).

    Args:
        log_ratios: u of whole responses, [P, K].
        wins: of best i against worst j, as counts or probabilities, [P, K, K].
    """
    slopes = wins * 2 * (log_ratios[:, :, None] - log_ratios[:, None, :] - 0.5 / tau)
    return _by_responses(slopes)


def dpo_pushes(log_ratios: Array, wins: Array, beta: float) -> Array:
    """The same of DPO's: -beta sigmoid(-beta (u_i - u_j))."""
    margins = beta * (log_ratios[:, :, None] - log_ratios[:, None, :])
    return _by_responses(-beta * wins / (1 + np.exp(margins)))


def _by_responses(slopes: Array) -> Array:
    pushes: Array = slopes.sum(2) - slopes.sum(1)
    return pushes
