import itertools
import math

import numpy as np
import pytest

from plumbob.verify.optima.group_optima import (
    batch_std,
    group_advantages,
    group_baseline_optimum,
    grpo_gradient,
    grpo_optimum,
    multisets,
)
from plumbob.verify.optima.online_optima import kl_in_loss_gradient
from plumbob.verify.optima.response_tree import (
    Instance,
    ResponseTree,
    log_normalised,
    seeded_rewards,
    single_token_prompts,
    tilted,
)


def instance(seed=0, beta=1.0, num_prompts=3, vocab_size=4, depth=1, rewards=None):
    tree = ResponseTree(vocab_size, depth)
    logits = np.random.default_rng(seed + 100).normal(size=(num_prompts, len(tree.states), vocab_size))
    reference = tree.response_logprobs(log_normalised(logits))
    rewards = seeded_rewards(tree, num_prompts, seed) if rewards is None else rewards
    return Instance(tree, single_token_prompts(tree, num_prompts), reference, rewards, beta)


def drawn_gradient(problem, policy, kind, group_size, ddof, eps):
    """GRPO's expected gradient by drawing every ordered group, mean over its responses and over the prompts."""
    gradient = np.zeros_like(policy)
    num_prompts, num_responses = policy.shape
    for x in range(num_prompts):
        probs = np.exp(policy[x])
        for group in itertools.product(range(num_responses), repeat=group_size):
            rewards = problem.rewards[x, list(group)]
            std = rewards.std(ddof=ddof)
            for response, reward in zip(group, rewards, strict=True):
                u = policy[x, response] - problem.reference[x, response]
                slope = u if kind == "k2" else 1 - math.exp(-u)
                advantage = 0.0 if len(set(rewards)) == 1 else (reward - rewards.mean()) / (std + eps)
                push = (advantage - problem.beta * slope) / group_size / num_prompts
                gradient[x] -= probs[list(group)].prod() * push * (np.eye(num_responses)[response] - probs)
    return gradient


def test_companions_by_hand():
    # Two others over three responses: 6 multisets, mixed ones in 2 orders.
    counts, log_orders = multisets(2, 3)
    found = {tuple(row): round(math.exp(orders)) for row, orders in zip(counts.astype(int), log_orders, strict=True)}
    assert found == {(2, 0, 0): 1, (0, 2, 0): 1, (0, 0, 2): 1, (1, 1, 0): 2, (1, 0, 1): 2, (0, 1, 1): 2}
    with pytest.raises(ValueError, match="above 1,000,000"):
        multisets(31, 8)


@pytest.mark.parametrize(("ddof", "eps"), [(0, 0.0), (1, 1e-4)])
def test_advantages_of_binary_rewards_follow_the_binomial(ddof, eps):
    # With j other successes of G - 1 at probability p, a success has mean m = (j + 1) / G, variance m (1 - m) G / (G -
    # ddof) and A = (1 - m) / (std + eps), a failure m = j / G and A = -m / (std + eps).
    policy, p, size = np.log([0.2, 0.5, 0.3]), 0.5, 8

    def expected(own):
        total = 0.0
        for j in range(size):
            m = (j + own) / size
            std = math.sqrt(m * (1 - m) * size / (size - ddof))
            advantage = (own - m) / (std + eps) if 0 < m < 1 else 0.0
            total += math.comb(size - 1, j) * p**j * (1 - p) ** (size - 1 - j) * advantage
        return total

    advantages = group_advantages(policy, np.array([0.0, 1.0, 0.0]), size, ddof, eps)
    assert advantages == pytest.approx([expected(0), expected(1), expected(0)])


@pytest.mark.parametrize(("kind", "ddof", "eps"), [("k2", 0, 1e-4), ("k3", 1, 0.0), ("k3", 0, 0.1)])
def test_grpo_gradient_is_zero_at_its_optimum_and_the_drawn_one_elsewhere(kind, ddof, eps):
    problem = instance(num_prompts=2)
    at = log_normalised(np.random.default_rng(1).normal(size=(2, 4)))
    drawn = drawn_gradient(problem, at, kind, 4, ddof, eps)
    assert grpo_gradient(problem, at[:, None], kind, 4, ddof, eps)[:, 0] == pytest.approx(drawn, abs=1e-14)
    assert np.abs(drawn).max() > 0.01
    optimum = grpo_optimum(problem, kind, 4, ddof, eps)
    assert np.exp(optimum).sum(-1) == pytest.approx([1, 1])
    assert drawn_gradient(problem, optimum, kind, 4, ddof, eps) == pytest.approx(np.zeros((2, 4)), abs=1e-11)


def test_k3_with_binary_rewards_has_a_scalar_root():
    # A - beta (1 - pi_ref / pi) is the same on successes, where pi / pi_ref = p / q, and on failures, where it is
    # (1 - p) / (1 - q): A1 - A0 = beta ((1 - q) / (1 - p) - q / p), q = pi_ref(success), p = pi(success).
    rewards = np.array([[0.0, 1.0, 0.0, 1.0]])
    problem = instance(seed=2, num_prompts=1, rewards=rewards, beta=1.5)
    optimum, size = np.exp(grpo_optimum(problem, "k3", 16, ddof=0, eps=1e-4)[0]), 16
    q = np.exp(problem.reference[0])[[1, 3]].sum()

    def spread(p):
        total = 0.0
        for j in range(size):
            weight = math.comb(size - 1, j) * p**j * (1 - p) ** (size - 1 - j)
            for own in (0, 1):
                m = (j + own) / size
                total += weight * (1 - m if own else m) / (math.sqrt(m * (1 - m)) + 1e-4)
        return total

    low, high = q, 1.0
    for _ in range(60):
        p = (low + high) / 2
        low, high = (p, high) if spread(p) > 1.5 * ((1 - q) / (1 - p) - q / p) else (low, p)
    assert optimum[[1, 3]].sum() == pytest.approx(p)
    assert optimum[1] / optimum[3] == pytest.approx(np.exp(problem.reference[0, 1] - problem.reference[0, 3]))


@pytest.mark.parametrize("length_weighted", [False, True])
def test_grpo_with_longer_responses_is_a_zero_of_its_expected_gradient(length_weighted):
    problem = instance(num_prompts=2, depth=2)
    optimum = grpo_optimum(problem, "k3", 3, 1, 1e-4, length_weighted)
    policy = problem.tree.next_token_logprobs(optimum)
    gradient = grpo_gradient(problem, policy, "k3", 3, 1, 1e-4, length_weighted)
    assert gradient == pytest.approx(np.zeros_like(gradient), abs=1e-11)
    # The same at the reference by drawing every ordered group of 3 out of 13 responses.
    tree, at = problem.tree, problem.reference_policy
    probs, lengths = np.exp(problem.reference[0]), problem.tree.num_tokens
    pushes = np.zeros(13)
    for group in itertools.product(range(13), repeat=3):
        rewards = problem.rewards[0, list(group)]
        if len(set(rewards)) > 1:
            weight = probs[list(group)].prod() / 3 * (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)
            np.add.at(pushes, list(group), weight)
    mean = 1 / lengths if length_weighted else np.ones(13) / (np.exp(problem.reference) * lengths).sum() * 2
    drawn = -tree.logit_gradient(at, np.stack([(pushes * mean)[:, None] * tree.mask] * 2))[0] / 2
    found = grpo_gradient(problem, at, "k3", 3, 1, 1e-4, length_weighted)[0]
    assert found == pytest.approx(drawn, abs=1e-14) and np.abs(drawn).max() > 0.01


def test_group_baseline_with_one_token_is_the_closed_form():
    problem = instance(seed=3, beta=1.0)
    optimum, k = group_baseline_optimum(problem, group_size=8), 7 / 8
    probs = np.exp(optimum)
    variances = (probs * problem.rewards**2).sum(-1) - (probs * problem.rewards).sum(-1) ** 2
    s = math.sqrt(k * variances.mean())
    assert batch_std(problem, optimum, 8) == pytest.approx(s)
    assert optimum == pytest.approx(tilted(problem.reference, problem.rewards, s * problem.beta / k))
    with pytest.raises(ArithmeticError, match="no fixed point"):
        group_baseline_optimum(instance(seed=3, beta=0.1), group_size=8)


def test_group_baseline_with_longer_responses_is_zero_of_the_expected_gradient():
    problem = instance(seed=4, depth=3, beta=1.5)
    optimum = group_baseline_optimum(problem, group_size=4)
    scale = 3 / 4 / batch_std(problem, optimum, 4)
    policy = problem.tree.next_token_logprobs(optimum)
    gradient = kl_in_loss_gradient(problem, policy, "k2", scale)
    assert gradient == pytest.approx(np.zeros_like(gradient), abs=1e-13)


def test_batch_std_equals_that_of_drawn_groups():
    # Rewards that rise with the length, so that the mean over tokens is far from 0.
    tree = ResponseTree(4, 3)
    problem = instance(seed=5, depth=3, rewards=seeded_rewards(tree, 3, seed=5) + tree.num_tokens)
    rng = np.random.default_rng(0)
    values, lengths = [], []
    for x in range(3):
        drawn = rng.choice(40, size=(40_000, 4), p=np.exp(problem.reference[x]))
        rewards = problem.rewards[x, drawn]
        values.append((rewards - rewards.mean(-1, keepdims=True)).ravel())
        lengths.append(problem.tree.num_tokens[drawn].ravel())
    values, lengths = np.concatenate(values), np.concatenate(lengths)
    mean = np.average(values, weights=lengths)
    drawn_std = math.sqrt(np.average((values - mean) ** 2, weights=lengths))
    assert batch_std(problem, problem.reference, 4) == pytest.approx(drawn_std, rel=0.005)
