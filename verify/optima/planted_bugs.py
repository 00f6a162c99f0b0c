"""Where trainers end that have a planted bug, solved as the right targets are, in float64.

Bugs have the names by which the gradient tests in `tests/optimum/` plant them. A target of None is not
solved for. So it is without EOS in the mask: training may then end at any of many policies, or at the edge, where some
responses never end. Of what reward models learn: `verify.optima.planted_reward_bugs`.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from plumbob.verify.optima.offline_optima import (
    hinge_optimum,
    length_tilted,
    logistic,
    orpo_optimum,
    pair_scores,
    simpo_optimum,
    sppo_optimum,
    squared,
)
from plumbob.verify.optima.online_optima import NUM_HALVINGS, balanced, returns_to_go
from plumbob.verify.optima.response_tree import Array, Instance, ResponseTree, log_normalised, tilted

OnlineTarget = Callable[[Instance], Array]
"""An instance -> log-probs [P, K]."""
PairTarget = Callable[[Array, Array, Array], Array]
"""(reference [K], wins [K, K], tokens of each response [K]) -> log-probs [K]."""

TOO_LARGE = 1.1
"""Times beta: ten percent too large."""
HOTTER = 1.1
"""By which logits are divided, where 1 is meant."""


def online_bugs(target: OnlineTarget) -> dict[str, OnlineTarget | None]:
    """Of bugs that every online trainer can have; the wrong reference is the policy itself."""
    return {
        "beta 10% too large": stronger(target, TOO_LARGE),
        "temperature 1.1": tempered(target, HOTTER),
        "the wrong reference": greedy,
        "EOS out of the mask": None,
    }


def stronger(target: OnlineTarget, factor: float) -> OnlineTarget:
    """The target with beta times `factor`."""
    return lambda instance: target(replace(instance, beta=factor * instance.beta))


def tempered(target: OnlineTarget, temperature: float) -> OnlineTarget:
    """Where a trainer ends whose sampler and learner divide logits by `temperature`, the policy being read at 1.

    What it trains is the tempered policy pi^(1/T), normalised at each token, against the tempered reference: that ends
    at the target for such a reference, and pi is then its power T, normalised at each token. For one token and pi*
    that is beta / T.

    With k1 in the reward a learner alone at that temperature ends there too, since there every response to a prompt has
    the same return, so that no advantage is left whoever drew it (nor by REINFORCE++, whose baseline is the batch's,
    once the importance weights have made the tokens the learner's own). For the same reason a sampler alone at it
    leaves pi* where it is.
    """

    def reached(instance: Instance) -> Array:
        reference = powered(instance.tree, instance.reference, 1 / temperature)
        return powered(instance.tree, target(replace(instance, reference=reference)), temperature)

    return reached


def powered(tree: ResponseTree, policy: Array, power: float) -> Array:
    """The power of a policy's next-token probabilities, normalised at each token; log-probs [P, K], as `policy`."""
    return tree.response_logprobs(log_normalised(tree.next_token_logprobs(policy) * power))


def greedy(instance: Instance) -> Array:
    """All mass on the response of the highest reward: no KL holds a policy that is its own reference."""
    is_best = instance.rewards == instance.rewards.max(-1, keepdims=True)
    return np.where(is_best, 0.0, -np.inf)


def weighed_returns_optimum(problem: Instance) -> Array:
    """Fixed point of REINFORCE++ with gamma 1 and k1 in the reward when each response's tokens weigh 1/|y|.

    The gradient is that of E sum_t (G_t - m) / |y| log pi, m the mean of all tokens' returns to go. A state balances
    where E[(G_t - m) / |y|] is the same for each next token: M - beta W u, W = E 1/|y| behind the token, M = (r - m) /
    |y| at an end and elsewhere the next state's own balance. A baseline of the prompt or the state would keep pi*.
    """
    tree = problem.tree
    ends = np.broadcast_to(1 / tree.num_tokens, problem.rewards.shape)

    def policy(mean: float) -> Array:
        found = np.empty_like(problem.reference_policy)
        gains, weights = np.empty(found.shape[:2]), np.empty(found.shape[:2])
        for state in reversed(range(len(tree.states))):
            gain = tree.of_next_tokens(state, gains, (problem.rewards - mean) * ends)
            weight = tree.of_next_tokens(state, weights, ends)
            own = balanced(problem.reference_policy[:, state], gain, problem.beta * weight, "k2")
            found[:, state] = own
            gains[:, state] = (gain - problem.beta * weight * (own - problem.reference_policy[:, state]))[:, 0]
            weights[:, state] = (np.exp(own) * weight).sum(-1)
        return found

    low, high = float(problem.rewards.min()), float(problem.rewards.max())
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_return(problem, policy(middle)) > middle else (low, middle)
    return tree.response_logprobs(policy((low + high) / 2))


def mean_return(problem: Instance, policy: Array) -> float:
    """Mean over all tokens of their returns to go, k1 in the reward; `policy`: log pi, [P, S, V]."""
    tree = problem.tree
    probs = np.exp(tree.response_logprobs(policy))
    returns = returns_to_go(problem, policy, 1.0).sum(-1)
    return float((probs * returns).sum() / (probs * tree.num_tokens).sum())


def pair_bugs(
    scores: Callable[[Array, float], Array], beta: float, per_token: bool = False, has_reference: bool = True
) -> dict[str, PairTarget | None]:
    """Of a loss of pairs that is least where u of each response, or log pi, is its score and a constant.

    Args:
        scores: (wins [K, K], beta) -> [K].
        beta: of the loss; IPO's tau.
        per_token: whether the loss takes the mean of a response's tokens, instead of their sum.
        has_reference: whether the loss compares u = log(pi / pi_ref), instead of log pi.
    """

    def target(beta: float, per_token: bool, has_reference: bool) -> PairTarget:
        def solved(reference: Array, wins: Array, num_tokens: Array) -> Array:
            base, wanted = reference if has_reference else np.zeros_like(reference), scores(wins, beta)
            return length_tilted(base, wanted, num_tokens) if per_token else tilted(base, wanted, 1.0)

        return solved

    other = "summed instead of per token" if per_token else "per token instead of summed"
    listed: dict[str, PairTarget | None] = {
        "beta 10% too large": target(TOO_LARGE * beta, per_token, has_reference),
        other: target(beta, not per_token, has_reference),
        "EOS out of the mask": None,
    }
    return listed | ({"no reference": target(beta, per_token, False)} if has_reference else {})


def tempered_pairs(target: PairTarget, tree: ResponseTree) -> dict[str, PairTarget]:
    """As `tempered`: of every loss of pairs, whose policy and reference a trainer reads at a temperature."""

    def reached(reference: Array, wins: Array, num_tokens: Array) -> Array:
        trained = target(powered(tree, reference[None], 1 / HOTTER)[0], wins, num_tokens)
        return powered(tree, trained[None], HOTTER)[0]

    return {"temperature 1.1": reached}


def simpo_bugs(margin: float) -> dict[str, PairTarget | None]:
    def scores(wins: Array, beta: float) -> Array:
        return pair_scores(wins, logistic(margin)) / beta

    return {
        **pair_bugs(scores, beta=1.0, per_token=True, has_reference=False),
        "margin left out": lambda _, wins, num_tokens: simpo_optimum(wins, num_tokens, 1.0, 0.0),
    }


def orpo_bugs(weight: float) -> dict[str, PairTarget | None]:
    return {
        "weight 10% too large": lambda _, wins, num_tokens: orpo_optimum(wins, num_tokens, TOO_LARGE * weight).policy,
        "summed instead of per token": lambda _, wins, num_tokens: (
            orpo_optimum(wins, np.ones_like(num_tokens), weight).policy
        ),
        "EOS out of the mask": None,
    }


def sppo_bugs(beta: float) -> dict[str, PairTarget | None]:
    return {
        "beta 10% too large": lambda reference, wins, _: sppo_optimum(reference, wins, TOO_LARGE * beta),
        "per token instead of summed": lambda reference, wins, num_tokens: sppo_optimum(
            reference, wins, beta, num_tokens
        ),
        "no reference": lambda reference, wins, _: sppo_optimum(np.zeros_like(reference), wins, beta),
        "EOS out of the mask": None,
    }


def dpo_scores(wins: Array, beta: float) -> Array:
    return pair_scores(wins, logistic()) / beta


def ipo_scores(wins: Array, tau: float) -> Array:
    return pair_scores(wins, squared(0.5 / tau))


def hinge_scores(wins: Array, beta: float) -> Array:
    """Of the optimum that is found; there may be others."""
    return hinge_optimum(wins).scores / beta
