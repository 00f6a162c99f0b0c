"""Where objectives end whose advantages are divided by a sampled standard deviation: GRPO, and REINFORCE++ by groups.

GRPO's groups are small, so that the expectation runs over every group that can be drawn. All in float64.
"""

import functools
import itertools
import math

import numpy as np

from plumbob.verify.optima.online_optima import (
    NUM_HALVINGS,
    KlInLoss,
    balanced_tree,
    kl_in_loss_optimum,
    kl_slope,
    step_gradient,
)
from plumbob.verify.optima.response_tree import Array, Instance, log_normalised

MAX_GROUPS = 1_000_000
TOLERANCE = 1e-12


@functools.lru_cache(maxsize=8)
def multisets(num_others: int, num_responses: int) -> tuple[Array, Array]:
    """Every multiset of `num_others` responses as counts [M, K], and the logarithm of its number of orders [M]."""
    size = math.comb(num_others + num_responses - 1, num_responses - 1)
    if size > MAX_GROUPS:
        raise ValueError(
            f"{num_others} others over {num_responses} responses are {size:,} groups, above {MAX_GROUPS:,}"
        )
    end = num_others + num_responses - 1
    bars = np.array(list(itertools.combinations(range(end), num_responses - 1)), dtype=np.int64).reshape(size, -1)
    edges = np.concatenate([np.full((size, 1), -1), bars, np.full((size, 1), end)], axis=1)
    counts = np.diff(edges, axis=1) - 1
    log_factorials = np.array([math.lgamma(n + 1) for n in range(num_others + 1)])
    return counts.astype(np.float64), log_factorials[-1] - log_factorials[counts].sum(-1)


def group_advantages(policy: Array, rewards: Array, group_size: int, ddof: int, eps: float) -> Array:
    """E[A | response], A = (r - mean) / (std + eps) in a group of G (Shao et al. 2024, arXiv 2402.03300, section
    4.1.2).

    The other G - 1 responses are drawn from the policy. A group of identical rewards has A = 0.

    Args:
        policy: log-probs of the responses to one prompt, [K].
        ddof: 0 where the variance is divided by G, 1 where by G - 1.
        eps: added to the standard deviation.
    """
    counts, log_orders = multisets(group_size - 1, len(policy))
    probs = np.exp(log_orders + counts @ policy)
    totals = counts @ rewards
    advantages = np.empty_like(rewards)
    for response, reward in enumerate(rewards):
        mean = (totals + reward) / group_size
        squares = (counts * np.square(rewards - mean[:, None])).sum(-1) + np.square(reward - mean)
        spread = squares > 1e-20
        std = np.sqrt(np.where(spread, squares, 1.0) / (group_size - ddof))
        advantages[response] = (probs * np.where(spread, (reward - mean) / (std + eps), 0.0)).sum()
    return advantages


def grpo_optimum(
    problem: Instance, kind: KlInLoss, group_size: int, ddof: int, eps: float, length_weighted: bool = False
) -> Array:
    """Fixed point of GRPO with beta KL per token in the loss, log-probs [P, K].

    As `kl_in_loss_optimum`, with E[A | response] for the reward, which itself follows the policy: for one token
    E[A | a] - beta g(u) is one number for every response, g = u (k2) or 1 - exp(-u) (k3). Damped iteration from the
    reference, so that of several roots it is the one that training meets first.

    Args:
        length_weighted: each response's tokens weigh 1/|y| instead of 1.
    """
    tree = problem.tree
    weights = 1 / tree.num_tokens if length_weighted else np.ones(len(tree.responses))
    policy = problem.reference
    for _ in range(2000):
        gains = weights * _advantages(problem, policy, group_size, ddof, eps)
        target = tree.response_logprobs(balanced_tree(problem, kind, gains, weights))
        if np.abs(target - policy).max() < TOLERANCE:
            return target
        policy = log_normalised(policy + 0.3 * (target - policy))
    raise ArithmeticError("GRPO's fixed point was not reached: beta is so small that the policy collapses")


def grpo_gradient(
    problem: Instance,
    policy: Array,
    kind: KlInLoss,
    group_size: int,
    ddof: int,
    eps: float,
    length_weighted: bool = False,
) -> Array:
    """Expected gradient of GRPO's loss by the logits, [P, S, V].

    Args:
        policy: log pi, [P, S, V].
    """
    tree = problem.tree
    responses = tree.response_logprobs(policy)
    advantages = _advantages(problem, responses, group_size, ddof, eps)
    slopes = kl_slope(tree.along(policy - problem.reference_policy), kind)
    return step_gradient(
        problem, policy, advantages[..., None] - problem.beta * slopes, np.exp(responses), length_weighted
    )


def _advantages(problem: Instance, policy: Array, group_size: int, ddof: int, eps: float) -> Array:
    """E[A | response], [P, K]; `policy`: log-probs of the responses, [P, K]."""
    pairs = zip(policy, problem.rewards, strict=True)
    return np.stack([group_advantages(logprobs, rewards, group_size, ddof, eps) for logprobs, rewards in pairs])


def group_baseline_optimum(problem: Instance, group_size: int) -> Array:
    """Fixed point of REINFORCE++ with group baseline: r - group mean, over the batch's std per token, k2 in the loss.

    The backward induction of `kl_in_loss_optimum` with scale k / s, k = (G - 1) / G (Hu et al. 2025, arXiv 2501.03262);
    s by `batch_std` at that same policy. With one token: pi_ref exp(k r / (beta s)), s^2 = k E_x Var_pi r. Of several
    roots the one nearest the reference; raises ArithmeticError where there is none, and training collapses.
    """
    share = (group_size - 1) / group_size

    def excess(scale: float) -> float:
        return scale * batch_std(problem, kl_in_loss_optimum(problem, "k2", scale), group_size) - share

    start = share / batch_std(problem, problem.reference, group_size)
    low = 0.0
    for high in start * np.linspace(0.05, 10.0, 200):
        if excess(high) >= 0:
            break
        low = high
    else:
        raise ArithmeticError(f"no fixed point at beta {problem.beta}: the spread of rewards shrinks faster than s")
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle) >= 0 else (middle, high)
    return kl_in_loss_optimum(problem, "k2", (low + high) / 2)


def batch_std(problem: Instance, policy: Array, group_size: int) -> float:
    """Standard deviation over the tokens of a large batch of r - group mean, which every token of a response carries.

    Given the response, r - group mean has mean k (r - E r), k = (G - 1) / G, and variance k / G Var r.

    Args:
        policy: log-probs of responses, [P, K].
    """
    share = (group_size - 1) / group_size
    probs = np.exp(policy)
    centred = problem.rewards - (probs * problem.rewards).sum(-1, keepdims=True)
    variance = (probs * np.square(centred)).sum(-1, keepdims=True)
    weights = probs * problem.tree.num_tokens / (probs * problem.tree.num_tokens).sum()
    second = (weights * (np.square(share * centred) + share / group_size * variance)).sum()
    return float(np.sqrt(second - np.square((weights * share * centred).sum())))
