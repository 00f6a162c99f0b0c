"""Where offline preference objectives end, for exact or counted preferences among one prompt's K responses, in float64.

`wins` [K, K]: how often, or with what probability, response i is preferred to j; zero on the diagonal. A loss of pairs
depends on scores' differences alone, so that a method is a loss of the margin z and the way from scores to a policy.
Losses are means over the wins' total. Policies are log-probs of whole responses [K], u = log(pi / pi_ref).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from plumbob.verify.optima.response_tree import Array, log_normalised, tilted, total_variation

MAX_STEPS = 2000
TOLERANCE = 1e-12


class Slopes(NamedTuple):
    """A loss of the margin with its first and second derivatives, all of the margins' shape."""

    value: Array
    first: Array
    second: Array


MarginLoss = Callable[[Array], Slopes]


def _softplus(x: Array) -> Array:
    return np.logaddexp(0.0, x)


def _sigmoid(x: Array) -> Array:
    return np.exp(-_softplus(-x))


def logistic(margin: float = 0.0) -> MarginLoss:
    """-log sigmoid(z - margin): Bradley-Terry, DPO with z = beta (u_i - u_j), SimPO with a target margin."""

    def loss(z: Array) -> Slopes:
        wrong = _sigmoid(margin - z)
        return Slopes(_softplus(margin - z), -wrong, wrong * (1 - wrong))

    return loss


def squared(target: float) -> MarginLoss:
    """(z - target)^2: IPO with z = u_i - u_j and target 1 / (2 tau)."""
    return lambda z: Slopes(np.square(z - target), 2 * (z - target), np.full_like(z, 2.0))


def smooth_hinge(width: float) -> MarginLoss:
    """width * softplus((1 - z) / width): above max(0, 1 - z), by at most width ln 2."""

    def loss(z: Array) -> Slopes:
        wrong = _sigmoid((1 - z) / width)
        return Slopes(width * _softplus((1 - z) / width), -wrong, wrong * (1 - wrong) / width)

    return loss


def exact_wins(rewards: Array) -> Array:
    """Every unordered pair once, in both orders, with p(i > j) = sigmoid(r_i - r_j); sums to K (K - 1) / 2."""
    wins = _sigmoid(rewards[:, None] - rewards[None, :])
    np.fill_diagonal(wins, 0.0)
    return wins


def flipped(wins: Array, rate: float) -> Array:
    """Labels flipped at `rate`: p' = e + (1 - 2e) p. Conservative DPO of exact p is DPO of these (Mitchell 2023)."""
    return (1 - rate) * wins + rate * wins.T


def robust_wins(wins: Array, rate: float) -> Array:
    """Weights of robust DPO, ((1 - e) n_ij - e n_ji) / (1 - 2e) (Chowdhury et al. 2024, arXiv 2403.00409).

    The inverse of `flipped`: with exactly flipped labels robust DPO is DPO of the clean ones. A negative weight, which
    one label a pair gives, leaves the loss unbounded below.
    """
    weights = ((1 - rate) * wins - rate * wins.T) / (1 - 2 * rate)
    if weights.min() < 0:
        raise ValueError(f"a pair is preferred less often than labels are flipped ({rate}): robust DPO has no optimum")
    return weights


def pair_loss(wins: Array, scores: Array, loss: MarginLoss) -> tuple[float, Array, Array]:
    """Mean of loss(h_i - h_j) over the wins, with its gradient [K] and Hessian [K, K] by the scores."""
    weights = wins / wins.sum()
    slopes = loss(scores[:, None] - scores[None, :])
    pushes = weights * slopes.first
    pulls = weights * slopes.second
    pulls = pulls + pulls.T
    value = float((weights * slopes.value).sum())
    return value, pushes.sum(1) - pushes.sum(0), np.diag(pulls.sum(1)) - pulls


def pair_scores(wins: Array, loss: MarginLoss, start: Array | None = None) -> Array:
    """Scores [K] of mean 0 with the least `pair_loss`, for a convex loss.

    They are finite if a chain of responses, each preferred at least once to the next, leads from any response to any
    other (Ford 1957); else ValueError.
    """
    reached = (wins > 0) | np.eye(len(wins), dtype=bool)
    for _ in range(len(wins).bit_length()):
        reached = reached.astype(np.float64) @ reached > 0
    if not reached.all():
        raise ValueError("no finite scores: some responses are preferred to others and never the other way round")
    scores = minimise(lambda at: pair_loss(wins, at, loss), np.zeros(len(wins)) if start is None else start)
    return scores - scores.mean()


def minimise(objective: Callable[[Array], tuple[float, Array, Array]], start: Array) -> Array:
    """A local minimum by Newton steps with a ridge that grows until the value falls (Levenberg 1944).

    Args:
        objective: value, gradient and Hessian at x; a constant added to x changes nothing.
    """
    x, ridge = start, 1e-3
    value, gradient, hessian = objective(x)
    for _ in range(MAX_STEPS):
        if np.abs(gradient).max() < TOLERANCE:
            return x
        step = -np.linalg.solve(hessian + ridge * np.eye(len(x)), gradient)
        step = step - step.mean()
        new_value, new_gradient, new_hessian = objective(x + step)
        if gradient @ step < 0 and new_value <= value + 1e-15 * abs(value):
            x, value, gradient, hessian = x + step, new_value, new_gradient, new_hessian
            ridge = max(ridge / 10, 1e-12)
        else:
            ridge *= 4
    raise ArithmeticError(f"no minimum after {MAX_STEPS} steps: the gradient is still {np.abs(gradient).max():.1e}")


def dpo_optimum(reference: Array, wins: Array, beta: float) -> Array:
    """DPO's least loss, pi_ref exp(h / beta), h the Bradley-Terry scores (Rafailov et al. 2023, arXiv 2305.18290).

    pi* for exact wins; with counts, the maximum-likelihood policy; with `flipped` wins, conservative DPO.
    """
    return tilted(reference, pair_scores(wins, logistic()), beta)


def ipo_optimum(reference: Array, wins: Array, tau: float) -> Array:
    """IPO of summed log-probs (Azar et al. 2023, arXiv 2310.12036, eq. 17): least squares.

    For uniform pairs pi_ref exp(w / tau), w_i the mean over all K responses j, i itself with 1/2, of p(i > j).
    """
    return tilted(reference, pair_scores(wins, squared(0.5 / tau)), 1.0)


def averaged_ipo_optimum(reference: Array, wins: Array, tau: float, num_tokens: Array) -> Array:
    """IPO of log-ratios averaged over the response's tokens: for uniform pairs pi_ref exp(|y| (w / tau + c))."""
    return length_tilted(reference, pair_scores(wins, squared(0.5 / tau)), num_tokens)


def simpo_optimum(wins: Array, num_tokens: Array, beta: float, margin: float) -> Array:
    """SimPO, -log sigmoid(beta log pi_i / |i| - beta log pi_j / |j| - margin) (Meng et al. 2024, arXiv 2405.14734).

    With margin 0 and exact wins pi = exp(|y| (r / beta + c)). The margin is in units of z, as the paper's gamma.
    """
    scores = pair_scores(wins, logistic(margin)) / beta
    return length_tilted(np.zeros(len(scores)), scores, num_tokens)


def sppo_optimum(reference: Array, wins: Array, beta: float, parts: Array | float = 1.0) -> Array:
    """SPPO, (u_i - t)^2 + (u_j + t)^2 with t = 1 / (2 beta) (Wu et al. 2024, arXiv 2405.00675).

    Summed over the wins it is n_i (u_i - t (W_i - L_i) / n_i)^2 and a constant, n_i = W_i + L_i of W_i wins and L_i
    losses: least squares of u, which the normalised policy alone ties together. `parts` [K] divide u.
    """
    met = wins.sum(1) + wins.sum(0)
    targets = (wins.sum(1) - wins.sum(0)) / met / (2 * beta)
    weights = met / wins.sum()

    def objective(logits: Array) -> tuple[float, Array, Array]:
        policy = log_normalised(logits)
        probs, misses = np.exp(policy), (policy - reference) / parts - targets
        by_logits = np.eye(len(probs)) - probs  # d u_i / d logit_j.
        pushes = 2 * weights * misses / parts
        bend = pushes.sum() * (np.diag(probs) - np.outer(probs, probs))
        hessian = by_logits.T @ ((2 * weights / parts**2)[:, None] * by_logits) - bend
        return float(weights @ misses**2), by_logits.T @ pushes, hessian

    return log_normalised(minimise(objective, reference + targets))


def length_tilted(reference: Array, scores: Array, num_tokens: Array) -> Array:
    """reference + |y| (score + c), c such that the probabilities sum to 1: Newton on a convex, rising function of c."""
    c = 0.0
    for _ in range(MAX_STEPS):
        logits = reference + num_tokens * (scores + c)
        policy = log_normalised(logits)
        excess = float(logits[0] - policy[0])
        if abs(excess) < TOLERANCE:
            return policy
        c -= excess / float(np.exp(policy) @ num_tokens)
    raise ArithmeticError(f"no normalising constant after {MAX_STEPS} steps: the probabilities exceed 1 by {excess}")


class HingeOptimum(NamedTuple):
    """Attributes:

    scores: beta u up to a constant, [K]; not the only ones where the loss has a flat bottom.
    loss: the mean of max(0, 1 - z) over the wins that they reach.
    lower_bound: no scores reach less, by the dual of the linear programme.
    """

    scores: Array
    loss: float
    lower_bound: float


def hinge_loss(wins: Array, scores: Array) -> float:
    """Mean of max(0, 1 - (h_i - h_j)) over the wins, h = beta u (Zhao et al. 2023, arXiv 2305.10425)."""
    margins = scores[:, None] - scores[None, :]
    return float((wins * np.maximum(0.0, 1 - margins)).sum() / wins.sum())


def hinge_optimum(wins: Array) -> HingeOptimum:
    """The least hinge loss: smooth losses of falling width, then scores rounded to whole differences.

    max(0, 1 - z) = max over 0 <= a <= 1 of a (1 - z). Where the a balance at every response, as the smooth loss's
    slopes do at its minimum, sum wins a bounds the loss from below; corners of the linear programme differ by integers.
    """
    scores = np.zeros(len(wins))
    for halvings in range(12):
        loss = smooth_hinge(0.5**halvings)
        scores = pair_scores(wins, loss, scores)
    shares = -loss(scores[:, None] - scores[None, :]).first
    rounded = [np.round(scores - score) for score in scores]
    best = min([scores, *rounded], key=lambda candidate: hinge_loss(wins, candidate))
    return HingeOptimum(best - best.mean(), hinge_loss(wins, best), float((wins * shares).sum() / wins.sum()))


def orpo_loss(wins: Array, policy: Array, num_tokens: Array, weight: float) -> tuple[float, Array]:
    """ORPO (Hong et al. 2024, arXiv 2403.07691, eq. 6 and 7), and its gradient [K] by the responses' log-probs.

    Mean over the wins of -l_i + weight softplus(-(o_i - o_j)), l = log pi(y) / |y|, o = l - log(1 - exp l).
    """
    weights = wins / wins.sum()
    means = policy / num_tokens
    odds = means - np.log(-np.expm1(means))
    slopes = logistic()(odds[:, None] - odds[None, :])
    pushes = weight * weights * slopes.first
    value = (weights * (weight * slopes.value - means[:, None])).sum()
    by_odds = pushes.sum(1) - pushes.sum(0)
    return float(value), (-weights.sum(1) - by_odds / np.expm1(means)) / num_tokens


class OrpoOptimum(NamedTuple):
    """Attributes:

    policy: log-probs of the best minimum found, [K].
    loss: its loss.
    disagreement: the largest total variation from it among the minima that other starts ended in; 0 where one.
    """

    policy: Array
    loss: float
    disagreement: float


def orpo_optimum(wins: Array, num_tokens: Array, weight: float, num_starts: int = 4) -> OrpoOptimum:
    """The least ORPO loss over distributions, which need not be convex: from the uniform one and seeded others."""

    def gradient(logits: Array) -> tuple[float, Array]:
        policy = log_normalised(logits)
        with np.errstate(divide="ignore", invalid="ignore"):  # a step so far that a probability is 1 is not taken
            value, by_policy = orpo_loss(wins, policy, num_tokens, weight)
        return value, by_policy - np.exp(policy) * by_policy.sum()

    def objective(logits: Array) -> tuple[float, Array, Array]:
        value, slope = gradient(logits)
        steps = 1e-5 * np.eye(len(logits))
        hessian = np.stack([gradient(logits + step)[1] - gradient(logits - step)[1] for step in steps]) / 2e-5
        return value, slope, (hessian + hessian.T) / 2

    rng = np.random.default_rng(0)
    starts = [np.zeros(len(wins)), *(2.0 * rng.normal(size=len(wins)) for _ in range(num_starts - 1))]
    minima = [log_normalised(minimise(objective, start)) for start in starts]
    best = min(minima, key=lambda policy: orpo_loss(wins, policy, num_tokens, weight)[0])
    disagreement = max(float(total_variation(policy, best)) for policy in minima)
    return OrpoOptimum(best, orpo_loss(wins, best, num_tokens, weight)[0], disagreement)


def kto_gradient(log_ratios: Array, desirable: Array, undesirable: Array, beta: float, reference_point: float) -> Array:
    """Gradient of KTO's loss by the responses' log-probs, [K] (Ethayarajh et al. 2024, arXiv 2402.01306, eq. 8).

    Loss: sum of d (1 - sigmoid(beta (u - z))) + n (1 - sigmoid(beta (z - u))); z carries no gradient.

    Args:
        log_ratios: u of whole responses, [K].
        desirable: d, the share of each response labelled desirable times lambda_D, [K].
        undesirable: n, the same of undesirable ones times lambda_U, [K].
        reference_point: z, an estimate of KL(pi || pi_ref) that is at least 0.
    """
    right = _sigmoid(beta * (log_ratios - reference_point))
    gradient: Array = beta * right * (1 - right) * (undesirable - desirable)
    return gradient
