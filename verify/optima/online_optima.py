"""Where online objectives end: fixed points and expected gradients by enumeration, in float64.

u = log(pi / pi_ref) of a next token; Q(s, a) and V(s) are expectations under the policy. Each optimum is returned as
log-probs of whole responses [P, K]. Gradients are those of the loss, to be minimised, at a policy that has just sampled
(every importance ratio 1), by next-token logits [P, S, V]. A step is taken to hold many responses: token-mean divides
by the expected number of tokens, and the correlation of the two, one part in the step's number of responses, is left
out.
"""

from typing import Literal, assert_never

import numpy as np

from plumbob.verify.optima.response_tree import Array, Instance, log_normalised

KlInLoss = Literal["k2", "k3"]

NUM_HALVINGS = 60
"""Bisections of an interval of order 1: more than float64 can tell apart."""


def discounted_optimum(problem: Instance, gamma: float) -> Array:
    """Fixed point of PPO with k1 in the reward and a discount: backward induction on soft values.

    pi(a|s) is proportional to pi_ref(a|s) exp(Q/beta), Q = r where the response ends and gamma V(s') elsewhere,
    V(s) = beta log sum_a pi_ref exp(Q/beta) (Haarnoja et al. 2017, arXiv 1702.08165, theorem 1, with pi_ref as prior).
    gamma = 1 is pi*.
    """
    tree, reference = problem.tree, problem.reference_policy
    policy = np.empty_like(reference)
    values = np.empty(reference.shape[:2])
    for state in reversed(range(len(tree.states))):
        logits = reference[:, state] + tree.of_next_tokens(state, gamma * values, problem.rewards) / problem.beta
        policy[:, state] = log_normalised(logits)
        values[:, state] = problem.beta * (logits - policy[:, state])[:, 0]
    return tree.response_logprobs(policy)


def kl_in_loss_optimum(problem: Instance, kind: KlInLoss, scale: float = 1.0, length_weighted: bool = False) -> Array:
    """Fixed point of policy gradient on r with beta KL per token in the loss: backward induction.

    With A = scale (r - E r) and gradients beta u (k2) or beta (1 - exp(-u)) (k3) per token, a state balances where
    scale Q(s,a) - beta u, or scale Q(s,a) - beta (1 - exp(-u)), is the same for each a. Not pi* for responses of
    several
    tokens: the KL of the tokens to come is left out.

    Args:
        scale: 1 for RLOO (a leave-one-out mean), (G - 1) / G for Dr. GRPO (a mean of all G, the response included).
        length_weighted: each response's tokens weigh 1/|y| (the mean over responses of means over tokens) instead of 1
            (the mean over the step's tokens). Then the baseline E r, which depends on the policy, matters.
    """
    tree = problem.tree
    if not length_weighted:
        weights = np.ones(len(tree.responses))
        return tree.response_logprobs(balanced_tree(problem, kind, scale * problem.rewards, weights))
    weights = 1 / tree.num_tokens

    def response_logprobs(baseline: Array) -> Array:
        gains = scale * (problem.rewards - baseline[:, None]) * weights
        return tree.response_logprobs(balanced_tree(problem, kind, gains, weights))

    low, high = problem.rewards.min(-1), problem.rewards.max(-1)
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        above = (np.exp(response_logprobs(middle)) * problem.rewards).sum(-1) > middle
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return response_logprobs((low + high) / 2)


def balanced_tree(problem: Instance, kind: KlInLoss, gains: Array, weights: Array) -> Array:
    """log pi [P, S, V] where every state balances the expected gain of the responses behind a token with their weight.

    Args:
        gains: weight times advantage of each response, up to a constant where the weights are all alike, [P, K].
        weights: what multiplies a response's KL per token, [K].
    """
    tree, reference = problem.tree, problem.reference_policy
    policy = np.empty_like(reference)
    state_gains, state_weights = np.empty(reference.shape[:2]), np.empty(reference.shape[:2])
    response_weights = np.broadcast_to(weights, gains.shape)
    for state in reversed(range(len(tree.states))):
        gain = tree.of_next_tokens(state, state_gains, gains)
        weight = tree.of_next_tokens(state, state_weights, response_weights)
        policy[:, state] = balanced(reference[:, state], gain, problem.beta * weight, kind)
        probs = np.exp(policy[:, state])
        state_gains[:, state], state_weights[:, state] = (probs * gain).sum(-1), (probs * weight).sum(-1)
    return policy


def balanced(reference: Array, gains: Array, weights: Array, kind: KlInLoss) -> Array:
    """log pi [P, V] at which gain - weight g(u) is one number, lam, for every action: u for k2, 1 - exp(-u) for k3.

    k2: pi = pi_ref exp((gain - lam) / weight). k3: pi = weight pi_ref / (lam + weight - gain), positive. The sum over
    actions falls with lam and is convex (k2: its logarithm), so Newton's method from the left meets 1 from one side.
    """
    probs = np.exp(reference)
    match kind:
        case "k2":
            lam = (probs * gains / weights).sum(-1) / (probs / weights).sum(-1)
        case "k3":
            lam = (gains - weights + weights * probs).max(-1)
        case _:
            assert_never(kind)
    for _ in range(200):
        match kind:
            case "k2":
                logits = reference + (gains - lam[:, None]) / weights
                policy = log_normalised(logits)
                excess = (logits - policy)[:, 0]
                slope = (np.exp(policy) / weights).sum(-1)
            case "k3":
                terms = weights * probs / (lam[:, None] + weights - gains)
                policy = np.log(terms)
                excess = terms.sum(-1) - 1
                slope = (terms / (lam[:, None] + weights - gains)).sum(-1)
        if np.abs(excess).max() < 1e-14 * np.maximum(1, np.abs(lam) * slope).max():
            return log_normalised(policy)
        lam = lam + excess / slope
    raise ArithmeticError(f"no balance of {kind} after 200 steps: the probabilities exceed 1 by {excess}")


def summed_ratio_optimum(problem: Instance, scale: float) -> Array:
    """Where GSPO ends whose surrogate is summed over a response's tokens instead of counted once, with k2 in the loss.

    The mean over responses of |y| s A has the gradient A sum_t grad log pi where s = 1, while the KL keeps its mean
    over a response's tokens: gains r, weights 1/|y|. The baseline drops out.
    """
    tree = problem.tree
    return tree.response_logprobs(balanced_tree(problem, "k2", scale * problem.rewards, 1 / tree.num_tokens))


def overlong_penalty(num_tokens: Array, max_tokens: int, cache_tokens: int) -> Array:
    """0 up to L_max - L_cache, 1 from L_max on, linear between, [K] (DAPO, arXiv 2503.14476, equation 13, negated)."""
    return np.interp(num_tokens, [max_tokens - cache_tokens, max_tokens], [0.0, 1.0])


def global_baseline_optimum(problem: Instance) -> Array:
    """Fixed point of k1 in the reward with weights 1/|y| and one mean of the whole return over all prompts.

    With R = r - beta log(pi(y) / pi_ref(y)) and baseline b, every response's (R - b) / |y| is one number c_x where
    pi is proportional to pi_ref exp((r - c_x |y|) / beta) and beta log sum pi_ref exp((r - c_x |y|) / beta) = b; b, the
    mean over prompts of E R = b + c_x E|y|, makes the c_x E|y| sum to 0. A mean per prompt has c_x = 0: pi*.
    """
    rewards, beta, lengths = problem.rewards, problem.beta, problem.tree.num_tokens

    def policy(costs: Array) -> tuple[Array, Array]:
        logits = problem.reference + (rewards - costs[:, None] * lengths) / beta
        normalised = log_normalised(logits)
        return normalised, beta * (logits - normalised)[:, 0]

    def costs(baseline: float) -> Array:
        low, high = np.full(len(rewards), -bound), np.full(len(rewards), bound)
        for _ in range(NUM_HALVINGS):
            middle = (low + high) / 2
            above = policy(middle)[1] > baseline
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        return (low + high) / 2

    values = policy(np.zeros(len(rewards)))[1]
    bound = float(values.max() - values.min())  # |y| >= 1: a cost of c moves a value by at least c
    low, high = float(values.min()), float(values.max())
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        at = costs(middle)
        pushed = (at * (np.exp(policy(at)[0]) * lengths).sum(-1)).sum() < 0
        low, high = (low, middle) if pushed else (middle, high)
    return policy(costs((low + high) / 2))[0]


def step_gradient(problem: Instance, policy: Array, coefficients: Array, counts: Array, length_weighted: bool) -> Array:
    """Gradient of one step's policy loss by the logits, [P, S, V]: -mean of coefficient * grad log pi.

    Args:
        policy: log pi [P, S, V].
        coefficients: advantage of each token of each response, held constant, [P, K, T] (or [P, K, 1]).
        counts: how often each response stands in the step, or its probability, [P, K].
        length_weighted: the mean over responses of means over tokens, instead of the mean over the step's tokens.
    """
    lengths = problem.tree.num_tokens
    weights = counts / lengths / counts.sum() if length_weighted else counts / (counts * lengths).sum()
    tokens = coefficients * problem.tree.mask
    return -problem.tree.logit_gradient(policy, weights[..., None] * tokens)


def returns_to_go(problem: Instance, policy: Array, gamma: float) -> Array:
    """G_t = -beta u_t + gamma G_t+1, and -beta u_t + r at the last token, [P, K, T]: k1 in the reward."""
    tree = problem.tree
    penalties = -problem.beta * tree.along(policy - problem.reference_policy)
    last = tree.mask - np.concatenate([tree.mask[:, 1:], np.zeros((len(tree.responses), 1))], axis=1)
    rewards = penalties + last * problem.rewards[..., None]
    returns = np.zeros_like(rewards)
    to_go = np.zeros_like(problem.rewards)
    for t in reversed(range(tree.depth)):
        to_go = rewards[..., t] + gamma * to_go
        returns[..., t] = to_go
    return returns


def kl_in_reward_gradient(problem: Instance, policy: Array, gamma: float = 1.0) -> Array:
    """Expected gradient of PPO or REINFORCE with k1 in the reward, token-mean: -E sum_t G_t grad log pi / E|y|.

    Any baseline of the state gives the same; a scaling of the advantages multiplies it.
    """
    counts = np.exp(problem.tree.response_logprobs(policy))
    return step_gradient(problem, policy, returns_to_go(problem, policy, gamma), counts, length_weighted=False)


def kl_in_loss_gradient(
    problem: Instance, policy: Array, kind: KlInLoss, scale: float = 1.0, length_weighted: bool = False
) -> Array:
    """Expected gradient of the loss whose root is `kl_in_loss_optimum`: A = scale (r - E r), k2 or k3 per token."""
    tree = problem.tree
    counts = np.exp(tree.response_logprobs(policy))
    advantages = scale * (problem.rewards - (counts * problem.rewards).sum(-1, keepdims=True))
    slopes = kl_slope(tree.along(policy - problem.reference_policy), kind)
    return step_gradient(problem, policy, advantages[..., None] - problem.beta * slopes, counts, length_weighted)


def kl_slope(log_ratios: Array, kind: KlInLoss) -> Array:
    """What multiplies grad log pi in the gradient of k2 = u^2 / 2, u, and of k3 = exp(-u) - 1 + u, 1 - exp(-u)."""
    match kind:
        case "k2":
            return log_ratios
        case "k3":
            return -np.expm1(-log_ratios)
        case _:
            assert_never(kind)
