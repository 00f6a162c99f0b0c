"""Who is first and last in a drawn group, by listing every group, and where losses of such pairs end."""

import itertools

import numpy as np
import pytest

from plumbob.verify.optima.offline_optima import averaged_ipo_optimum, dpo_optimum, ipo_optimum
from plumbob.verify.optima.ranked_optima import (
    dpo_pushes,
    ipo_of_ranked,
    ipo_pushes,
    kl_returns,
    pair_mass,
    pair_masses,
    ranked_pairs_optimum,
)
from plumbob.verify.optima.response_tree import (
    Array,
    Instance,
    ResponseTree,
    log_normalised,
    seeded_rewards,
    single_token_prompts,
    total_variation,
)
from plumbob.verify.rows.bug_shift import SEEN
from plumbob.verify.rows.ranked_rows import averaged_ipo_fixed_point, ipo_fixed_point


def instance(seed: int = 0, num_prompts: int = 2, depth: int = 2) -> Instance:
    tree = ResponseTree(4, depth)
    logits = np.random.default_rng(seed + 100).normal(size=(num_prompts, len(tree.states), 4))
    reference = tree.response_logprobs(log_normalised(logits))
    return Instance(
        tree, single_token_prompts(tree, num_prompts), reference, seeded_rewards(tree, num_prompts, seed), 0.4
    )


def listed_mass(policy: Array, returns: Array, group_size: int) -> Array:
    """By drawing every ordered group; of equal ones the first is the best, or the worst."""
    mass = np.zeros((len(policy), len(policy)))
    for group in itertools.product(range(len(policy)), repeat=group_size):
        ranked = returns[list(group)]
        if ranked.max() > ranked.min():
            mass[group[ranked.argmax()], group[ranked.argmin()]] += np.exp(policy[list(group)].sum())
    return mass


def test_two_responses_by_hand() -> None:
    # Of three draws at 1/4 and 3/4, all but 1/64 and 27/64 have both: the second is the better one.
    found = pair_mass(np.log([0.25, 0.75]), np.array([0.0, 1.0]), 3)
    assert found == pytest.approx(np.array([[0.0, 0.0], [36 / 64, 0.0]]))


@pytest.mark.parametrize("group_size", [2, 3, 4])
@pytest.mark.parametrize("returns", [[0.5, 0.1, -1.0, 0.9, 0.2], [0.5, 0.1, 0.5, 0.9, 0.1], [1.0] * 5])
def test_who_is_first_and_last_is_as_listed(group_size: int, returns: list[float]) -> None:
    policy = log_normalised(np.random.default_rng(1).normal(size=5))
    found = pair_mass(policy, np.array(returns), group_size)
    assert found == pytest.approx(listed_mass(policy, np.array(returns), group_size), abs=1e-14)


def test_what_is_drawn_and_not_ranked_is_passed_over_in_its_group() -> None:
    # Of five responses the last two are not ranked: listed, a group's best and worst are those of the first three.
    policy, returns = log_normalised(np.random.default_rng(7).normal(size=5)), np.array([0.3, -0.2, 0.9])
    expected = np.zeros((3, 3))
    for group in itertools.product(range(5), repeat=4):
        ranked = sorted({response for response in group if response < 3}, key=lambda response: returns[response])
        if len(ranked) > 1:
            expected[ranked[-1], ranked[0]] += np.exp(policy[list(group)].sum())
    assert pair_mass(policy[:3], returns, 4) == pytest.approx(expected, abs=1e-14)


def test_the_best_of_n_has_the_mass_of_the_best_of_n() -> None:
    # F(y)^n - F_(y)^n, F the mass of what is no better; pi(y)^n of it in groups of one response alone.
    policy, n = log_normalised(np.random.default_rng(2).normal(size=6)), 5
    order = np.random.default_rng(3).permutation(6)
    below = np.concatenate([[0], np.cumsum(np.exp(policy)[order])])
    expected = np.empty(6)
    expected[order] = below[1:] ** n - below[:-1] ** n
    returns = np.empty(6)
    returns[order] = np.arange(6.0)
    found = pair_mass(policy, returns, n).sum(1) + np.exp(n * policy)
    assert found == pytest.approx(expected) and expected.sum() == pytest.approx(1)


def test_with_kl_in_the_ranking_nothing_is_left_to_rank_at_the_best_policy_and_something_elsewhere() -> None:
    problem = instance()
    at_best = np.round(kl_returns(problem, problem.optimum), 12)
    assert pair_masses(problem.optimum, at_best, 4).sum() == 0
    # Elsewhere what is ranked first is never last: its likelihood has a gradient, whatever weighs the pairs.
    for policy in (problem.reference, log_normalised(np.random.default_rng(4).normal(size=(2, 13)))):
        returns = kl_returns(problem, policy)
        for prompt, wins in enumerate(pair_masses(policy, returns, 4)):
            first = returns[prompt].argmax()
            assert wins[first].sum() > 0.01 and wins[:, first].sum() == 0
        assert np.abs(dpo_pushes(policy - problem.reference, pair_masses(policy, returns, 4), 0.4)).max() > 0.01


@pytest.mark.parametrize("group_size", [2, 4])
def test_ipo_of_ones_own_ranked_pairs_is_a_zero_of_its_expected_gradient(group_size: int) -> None:
    # By listing every group at the fixed point: 2 (u_i - u_j - 1 / (2 tau)) on the best, and as much off the worst.
    problem = instance(seed=1)
    optimum = ipo_fixed_point(problem, group_size)
    for policy, reference, rewards in zip(optimum, problem.reference, problem.rewards, strict=True):
        mass, u = listed_mass(policy, rewards, group_size), policy - reference
        pushes = np.zeros(13)
        for i, j in itertools.permutations(range(13), 2):
            slope = mass[i, j] * 2 * (u[i] - u[j] - 1 / 0.8)
            pushes[i] += slope
            pushes[j] -= slope
        assert pushes == pytest.approx(np.zeros(13), abs=1e-11)
    assert total_variation(optimum, problem.reference).min() > SEEN
    at_reference = pair_masses(problem.reference, problem.rewards, group_size)
    assert np.abs(ipo_pushes(0 * problem.reference, at_reference, 0.4)).max() > 0.1


def test_the_same_of_log_ratios_a_token() -> None:
    # Where no pushes are left of (u_i / |i| - u_j / |j| - 1 / (2 tau))^2.
    problem = instance(seed=2)
    found = averaged_ipo_fixed_point(problem)
    means = (found - problem.reference) / problem.tree.num_tokens
    assert ipo_pushes(means, pair_masses(found, problem.rewards, 4), 0.4) == pytest.approx(np.zeros((2, 13)), abs=1e-9)


def test_of_pairs_that_are_given_a_ranking_ends_where_offline_ipo_does() -> None:
    wins = np.random.default_rng(5).uniform(0.1, 1.0, size=(6, 6)) * (1 - np.eye(6))
    reference = log_normalised(np.random.default_rng(6).normal(size=6))
    assert ipo_of_ranked(0.4)(reference, wins, np.ones(6)) == pytest.approx(ipo_optimum(reference, wins, 0.4))
    one_token = averaged_ipo_optimum(reference, wins, 0.4, np.ones(6))
    assert ipo_of_ranked(0.4)(reference, wins, np.ones(6)) == pytest.approx(one_token)


def test_hard_dpo_ranked_by_reward_alone_has_no_fixed_point() -> None:
    # What is ranked first is pushed up by every pair that it is in, however far it is ahead.
    problem = instance()
    ahead = problem.reference + 3 * problem.rewards / problem.beta
    for policy in (problem.reference, log_normalised(ahead)):
        pushes = dpo_pushes(policy - problem.reference, pair_masses(policy, problem.rewards, 4), 0.4)
        assert all(row[rewards.argmax()] < 0 for row, rewards in zip(pushes, problem.rewards, strict=True))
    with pytest.raises(ValueError, match="no finite scores"):
        ranked_pairs_optimum(problem, lambda reference, wins, _: dpo_optimum(reference, wins, 0.4), 4)
