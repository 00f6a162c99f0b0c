import ast
import math

import numpy as np
import pytest

from plumbob.verify.optima.response_tree import (
    Instance,
    ResponseTree,
    gap_ratio,
    given_end,
    kl,
    log_normalised,
    seeded_rewards,
    single_token_prompts,
    soft_values,
    tilted,
    total_variation,
)
from tests.support.source_tree import ROOT, text

EXACT = sorted(path.stem for path in (ROOT / "verify" / "optima").glob("[a-z]*.py"))


def random_policy(tree, num_prompts, seed):
    """Next-token log-probs [P, S, V] far from uniform."""
    return log_normalised(np.random.default_rng(seed).normal(size=(num_prompts, len(tree.states), tree.vocab_size)))


@pytest.mark.parametrize("name", EXACT)
def test_the_exact_side_imports_nothing_of_what_it_checks(name):
    modules = set()
    for node in ast.walk(ast.parse(text(f"verify.optima.{name}"))):
        match node:
            case ast.Import(names=names):
                modules |= {alias.name for alias in names}
            case ast.ImportFrom(module=module):
                modules.add(module)
    own = {f"plumbob.verify.optima.{exact}" for exact in EXACT}
    assert modules - own <= {"itertools", "math", "collections.abc", "dataclasses", "functools", "typing"} | {
        "numpy",
        "numpy.typing",
    }


@pytest.mark.parametrize(("vocab_size", "depth", "num_responses"), [(4, 3, 40), (8, 3, 400), (4, 1, 4), (2, 3, 4)])
def test_number_of_responses(vocab_size, depth, num_responses):
    tree = ResponseTree(vocab_size, depth)
    assert len(set(tree.responses)) == len(tree.responses) == num_responses


def test_the_tree_of_three_tokens_and_depth_two_by_hand():
    # States: nothing, "1", "2". Responses: EOS, 1 EOS, 2 EOS, then those cut at two tokens.
    tree = ResponseTree(3, 2)
    assert tree.states == ((), (1,), (2,))
    assert tree.responses == ((0,), (1, 0), (2, 0), (1, 1), (1, 2), (2, 1), (2, 2))
    assert tree.num_tokens.tolist() == [1, 2, 2, 2, 2, 2, 2]
    # The state's index times 3 plus the token; 9 behind the end.
    assert tree.paths.tolist() == [[0, 9], [1, 3], [2, 6], [1, 4], [1, 5], [2, 7], [2, 8]]
    assert tree.children.tolist() == [[~0, 1, 2], [~1, ~3, ~4], [~2, ~5, ~6]]


def test_log_probs_of_responses_by_hand():
    tree = ResponseTree(3, 2)
    policy = np.log([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.7, 0.1, 0.2]])
    expected = [0.5, 0.3 * 0.1, 0.2 * 0.7, 0.3 * 0.6, 0.3 * 0.3, 0.2 * 0.1, 0.2 * 0.2]
    assert np.exp(tree.response_logprobs(policy)) == pytest.approx(expected)


@pytest.mark.parametrize(("vocab_size", "depth"), [(4, 3), (8, 3), (4, 1)])
def test_responses_sum_to_one_and_give_the_next_tokens_back(vocab_size, depth):
    tree = ResponseTree(vocab_size, depth)
    policy = random_policy(tree, num_prompts=2, seed=0)
    logprobs = tree.response_logprobs(policy)
    assert np.exp(logprobs).sum(-1) == pytest.approx([1, 1])
    assert tree.next_token_logprobs(logprobs) == pytest.approx(policy)


def test_collect_is_the_transpose_of_along():
    tree = ResponseTree(4, 3)
    rng = np.random.default_rng(1)
    table, tokens = rng.normal(size=(2, 13, 4)), rng.normal(size=(2, 40, 3))
    assert (tree.along(table) * tokens).sum() == pytest.approx((table * tree.collect(tokens)).sum())


def test_logit_gradient_equals_finite_differences():
    tree = ResponseTree(3, 2)
    rng = np.random.default_rng(2)
    logits, tokens = rng.normal(size=(1, 3, 3)), rng.normal(size=(1, 7, 2))

    def value(at):
        return (tree.along(log_normalised(at)) * tokens).sum()

    numeric = np.zeros_like(logits)
    for place in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[place] = 1e-6
        numeric[place] = (value(logits + step) - value(logits - step)) / 2e-6
    assert tree.logit_gradient(log_normalised(logits), tokens) == pytest.approx(numeric, abs=1e-8)


def test_optimum_distances_and_gap_by_hand():
    # Two responses, pi_ref = (1/2, 1/2), r = (ln 3, 0), beta 1: pi* = (3/4, 1/4).
    reference, rewards = np.log([[0.5, 0.5]]), np.array([[math.log(3.0), 0.0]])
    optimum = tilted(reference, rewards, beta=1.0)
    assert np.exp(optimum) == pytest.approx(np.array([[0.75, 0.25]]))
    assert total_variation(reference, optimum) == pytest.approx([0.25])
    assert kl(reference, optimum) == pytest.approx([0.5 * math.log(2 / 3) + 0.5 * math.log(2)])
    assert gap_ratio(reference, optimum, reference) == pytest.approx(1.0)
    assert gap_ratio(optimum, optimum, reference) == 0.0
    # beta 1/2 squares the tilt: (9/10, 1/10).
    assert np.exp(tilted(reference, rewards, beta=0.5)) == pytest.approx(np.array([[0.9, 0.1]]))


def instance(seed=0, beta=0.4, num_prompts=3, tree=None):
    tree = tree or ResponseTree(4, 3)
    reference = tree.response_logprobs(random_policy(tree, num_prompts, seed))
    rewards = seeded_rewards(tree, num_prompts, seed)
    return Instance(tree, single_token_prompts(tree, num_prompts), reference, rewards, beta)


def test_responses_that_end_given_that_one_does_by_hand():
    # EOS 1/2, 1 EOS 1/6, and 1 1, which is cut, 1/3.
    tree = ResponseTree(2, 2)
    assert tree.ends.tolist() == [True, True, False]
    assert np.exp(given_end(tree, np.log([[1 / 2, 1 / 6, 1 / 3]]))) == pytest.approx(np.array([[3 / 4, 1 / 4]]))


def test_the_gap_is_that_of_the_objective():
    problem = instance()
    policy = problem.tree.response_logprobs(random_policy(problem.tree, 3, seed=9))

    def objective(logprobs):
        pays = (np.exp(logprobs) * problem.rewards).sum(-1) - problem.beta * kl(logprobs, problem.reference)
        return pays.mean()

    best, here, start = (objective(x) for x in (problem.optimum, policy, problem.reference))
    assert best > max(here, start)
    gap = gap_ratio(policy, problem.optimum, problem.reference)
    assert gap == pytest.approx((best - here) / (best - start))


def test_soft_values_are_what_the_best_policy_expects():
    # V*(s) = E over pi* of r - beta sum of log(pi* / pi_ref) over the tokens from s on: one a response behind s.
    problem = instance(seed=3)
    tree, values = problem.tree, soft_values(problem)
    log_ratios = tree.along(tree.next_token_logprobs(problem.optimum) - problem.reference_policy)
    for state_index, state in enumerate(tree.states):
        for response_index, response in enumerate(tree.responses):
            if len(response) > len(state) and response[: len(state)] == state:
                to_go = log_ratios[:, response_index, len(state) :].sum(-1)
                expected = problem.rewards[:, response_index] - problem.beta * to_go
                assert values[:, state_index] == pytest.approx(expected)


def test_rewards_are_seeded_and_bounded():
    tree = ResponseTree(4, 3)
    rewards = seeded_rewards(tree, 3, seed=5)
    assert (rewards == seeded_rewards(tree, 3, seed=5)).all()
    assert (rewards != seeded_rewards(tree, 3, seed=6)).all()
    assert -1 <= rewards.min() < -0.8
    assert 0.8 < rewards.max() <= 1


def test_prompts_differ_in_their_token():
    assert single_token_prompts(ResponseTree(4, 3), 3) == ((1,), (2,), (3,))
    with pytest.raises(ValueError, match="at most 3"):
        single_token_prompts(ResponseTree(4, 3), 4)


def test_an_instance_refuses_a_reference_that_is_no_distribution():
    tree = ResponseTree(3, 1)
    with pytest.raises(ValueError, match="sum to"):
        Instance(tree, ((1,),), np.log([[0.5, 0.3, 0.3]]), np.zeros((1, 3)), 1.0)
    with pytest.raises(ValueError, match="1 prompts and 3 responses"):
        Instance(tree, ((1,),), np.log([[0.5, 0.5]]), np.zeros((1, 3)), 1.0)
