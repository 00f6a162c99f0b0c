import numpy as np
import pytest

from plumbob.verify.optima.online_optima import (
    balanced,
    discounted_optimum,
    global_baseline_optimum,
    kl_in_loss_gradient,
    kl_in_loss_optimum,
    kl_in_reward_gradient,
    overlong_penalty,
    returns_to_go,
    step_gradient,
    summed_ratio_optimum,
)
from plumbob.verify.optima.response_tree import (
    Instance,
    ResponseTree,
    log_normalised,
    seeded_rewards,
    single_token_prompts,
    tilted,
    total_variation,
)


def random_policy(tree, num_prompts, seed):
    return log_normalised(np.random.default_rng(seed).normal(size=(num_prompts, len(tree.states), tree.vocab_size)))


def instance(seed=0, beta=0.4, num_prompts=3, vocab_size=4, depth=3):
    tree = ResponseTree(vocab_size, depth)
    reference = tree.response_logprobs(random_policy(tree, num_prompts, seed + 100))
    rewards = seeded_rewards(tree, num_prompts, seed)
    return Instance(tree, single_token_prompts(tree, num_prompts), reference, rewards, beta)


def walked_gradient(problem, policy, coefficient, length_weighted):
    """-E sum_t coefficient(x, k, t) grad log pi by walking every response token by token, without any table of paths.

    The mean over tokens divides by the expected number of tokens, that over responses by each response's own.
    """
    states = {state: index for index, state in enumerate(problem.tree.states)}
    gradient = np.zeros_like(policy)
    tokens = 0.0
    for x in range(len(policy)):
        for k, response in enumerate(problem.tree.responses):
            steps = [(states[response[:t]], token) for t, token in enumerate(response)]
            prob = np.exp(sum(policy[x, s, a] for s, a in steps)) / len(policy)
            tokens += prob * len(response)
            for t, (s, a) in enumerate(steps):
                grad_logprob = -np.exp(policy[x, s])
                grad_logprob[a] += 1
                weight = prob / len(response) if length_weighted else prob
                gradient[x, s] -= weight * coefficient(x, k, t, steps) * grad_logprob
    return gradient if length_weighted else gradient / tokens


def log_ratio(problem, policy, x, s, a):
    return policy[x, s, a] - problem.reference_policy[x, s, a]


def test_gamma_one_is_the_tilted_reference():
    problem = instance()
    assert discounted_optimum(problem, gamma=1.0) == pytest.approx(problem.optimum)


def test_discount_by_hand():
    # Tokens EOS and 1, depth 2, uniform reference, beta 1, gamma 1/2; r(EOS) = 0, r(1 EOS) = ln 3, r(1 1) = ln 13.
    # V(1) = ln(3/2 + 13/2) = ln 8. At the root the logits are 0 and ln(8)/2 = ln sqrt(8).
    tree = ResponseTree(2, 2)
    reference = np.log([[1 / 2, 1 / 4, 1 / 4]])
    problem = Instance(tree, ((1,),), reference, np.log([[1.0, 3.0, 13.0]]), beta=1.0)
    go_on = 8**0.5 / (1 + 8**0.5)
    expected = [[1 - go_on, go_on * 3 / 16, go_on * 13 / 16]]
    assert np.exp(discounted_optimum(problem, gamma=0.5)) == pytest.approx(np.array(expected))


@pytest.mark.parametrize("gamma", [1.0, 0.95, 0.5])
def test_expected_ppo_gradient_is_zero_at_its_optimum_and_the_walked_one_elsewhere(gamma):
    problem = instance(seed=1)

    def return_to_go(x, k, t, steps):
        ratios = [log_ratio(problem, at, x, s, a) for s, a in steps]
        penalties = sum(gamma ** (j - t) * ratios[j] for j in range(t, len(steps)))
        return gamma ** (len(steps) - 1 - t) * problem.rewards[x, k] - problem.beta * penalties

    at = random_policy(problem.tree, 3, seed=4)
    walked = walked_gradient(problem, at, return_to_go, length_weighted=False)
    assert kl_in_reward_gradient(problem, at, gamma) == pytest.approx(walked, abs=1e-14)
    assert np.abs(walked).max() > 0.01
    at = problem.tree.next_token_logprobs(discounted_optimum(problem, gamma))
    assert walked_gradient(problem, at, return_to_go, False) == pytest.approx(np.zeros_like(at), abs=1e-13)


def test_gradient_with_gamma_one_is_that_of_the_objective():
    # J = E r - beta KL(pi || pi_ref) summed over prompts, by finite differences; the loss is -J / (sum of E|y|).
    problem = instance(seed=2, vocab_size=3, depth=2, num_prompts=2)
    tree = problem.tree
    logits = np.random.default_rng(0).normal(size=(2, 3, 3))

    def objective(at):
        logprobs = tree.response_logprobs(log_normalised(at))
        return (np.exp(logprobs) * (problem.rewards - problem.beta * (logprobs - problem.reference))).sum()

    numeric = np.zeros_like(logits)
    for place in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[place] = 1e-6
        numeric[place] = (objective(logits + step) - objective(logits - step)) / 2e-6
    policy = log_normalised(logits)
    num_tokens = (np.exp(tree.response_logprobs(policy)) * tree.num_tokens).sum()
    assert kl_in_reward_gradient(problem, policy) == pytest.approx(-numeric / num_tokens, abs=1e-9)


def test_a_ratio_summed_over_its_tokens_is_zero_where_it_is_said_to_lead():
    # The mean over responses of |y| (1/|y|) A grad, and of the KL's mean over their tokens.
    problem = instance(seed=3)
    optimum = summed_ratio_optimum(problem, 0.75)
    policy = problem.tree.next_token_logprobs(optimum)
    counts, lengths = np.exp(optimum), problem.tree.num_tokens[:, None]
    advantages = 0.75 * (problem.rewards - (counts * problem.rewards).sum(-1, keepdims=True))[..., None]
    slopes = problem.beta * problem.tree.along(policy - problem.reference_policy)
    gradient = step_gradient(problem, policy, lengths * advantages - slopes, counts, length_weighted=True)
    assert gradient == pytest.approx(np.zeros_like(policy), abs=1e-13)
    assert total_variation(optimum, kl_in_loss_optimum(problem, "k2", 0.75, length_weighted=True)).max() > 0.1


def test_the_overlong_penalty_by_hand():
    # L_max 8, L_cache 4.
    found = overlong_penalty(np.array([1.0, 4.0, 5.0, 7.0, 8.0, 9.0]), 8, 4)
    assert found.tolist() == [0.0, 0.0, 0.25, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("length_weighted", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.75])
@pytest.mark.parametrize("kind", ["k2", "k3"])
def test_kl_in_the_loss_is_zero_at_its_optimum_and_the_walked_one_elsewhere(kind, scale, length_weighted):
    problem = instance(seed=3)

    def coefficient(x, k, t, steps):
        u = log_ratio(problem, at, x, *steps[t])
        slope = u if kind == "k2" else 1 - np.exp(-u)
        return scale * (problem.rewards[x, k] - mean[x]) - problem.beta * slope

    def expected_reward(policy):
        return (np.exp(problem.tree.response_logprobs(policy)) * problem.rewards).sum(-1)

    at = random_policy(problem.tree, 3, seed=5)
    mean = expected_reward(at)
    walked = walked_gradient(problem, at, coefficient, length_weighted)
    assert kl_in_loss_gradient(problem, at, kind, scale, length_weighted) == pytest.approx(walked, abs=1e-14)
    at = problem.tree.next_token_logprobs(kl_in_loss_optimum(problem, kind, scale, length_weighted))
    mean = expected_reward(at)
    assert walked_gradient(problem, at, coefficient, length_weighted) == pytest.approx(np.zeros_like(at), abs=1e-13)
    assert total_variation(problem.tree.response_logprobs(at), problem.optimum).min() > 0.005


def test_kl_in_the_loss_with_one_token_has_closed_forms():
    problem = instance(seed=4, depth=1)
    assert kl_in_loss_optimum(problem, "k2") == pytest.approx(problem.optimum)
    dr_grpo = kl_in_loss_optimum(problem, "k2", scale=7 / 8)
    assert dr_grpo == pytest.approx(tilted(problem.reference, problem.rewards, 0.4 * 8 / 7))


def test_k3_balance_by_hand():
    # weight 1, pi_ref = (1/2, 1/2), gains (1/2, 0). pi = 1/2 / (lam + 1 - gain) sums to 1 where, with m = lam + 1,
    # m^2 - 3/2 m + 1/4 = 0: m = (3 + sqrt 5) / 4, the root above 1/2.
    m = (3 + 5**0.5) / 4
    policy = balanced(np.log([[0.5, 0.5]]), np.array([[0.5, 0.0]]), np.ones((1, 2)), "k3")
    assert np.exp(policy) == pytest.approx(np.array([[0.5 / (m - 0.5), 0.5 / m]]))


def test_k1_in_the_loss_pushes_nowhere():
    # Its gradient is E grad log pi = 0.
    problem = instance(seed=5)
    policy = random_policy(problem.tree, 3, seed=6)
    counts = np.exp(problem.tree.response_logprobs(policy))
    gradient = step_gradient(problem, policy, np.ones((3, 40, 1)), counts, length_weighted=False)
    assert gradient == pytest.approx(np.zeros_like(gradient), abs=1e-15)


@pytest.mark.parametrize("baseline", ["prompt", "step"])
def test_weights_of_one_over_the_length_with_kl_in_the_reward(baseline):
    # One advantage for the whole response, R - b with R = r - beta log(pi / pi_ref): b the mean of R of the prompt
    # keeps pi*, b the mean over all prompts leads elsewhere.
    problem = instance(seed=6)
    optimum = problem.optimum if baseline == "prompt" else global_baseline_optimum(problem)
    returns = problem.rewards - problem.beta * (optimum - problem.reference)
    means = (np.exp(optimum) * returns).sum(-1)
    b = means if baseline == "prompt" else np.full(3, means.mean())
    policy = problem.tree.next_token_logprobs(optimum)
    gradient = walked_gradient(problem, policy, lambda x, k, t, steps: returns[x, k] - b[x], length_weighted=True)
    assert gradient == pytest.approx(np.zeros_like(gradient), abs=1e-13)
    # The costs of a token, (R - b) / |y|, are one number a prompt.
    costs = (returns - b[:, None]) / problem.tree.num_tokens
    assert np.ptp(costs, axis=-1) == pytest.approx(np.zeros(3), abs=1e-12)
    assert (np.abs(costs).max() > 0.01) == (baseline == "step")


def test_gradient_of_a_listed_step_by_hand():
    # Responses EOS, 1 EOS, 1 1 under a uniform policy: counts 1, 0, 2 are 5 tokens, and advantages 1 and 2.
    # d/dlogit of EOS and 1 per token: first state EOS once with 1: (1/2, -1/2); 1 twice with 2: 4 (-1/2, 1/2);
    # second state 1 twice with 2: 4 (-1/2, 1/2).
    tree = ResponseTree(2, 2)
    problem = Instance(tree, ((1,),), np.log([[1 / 2, 1 / 4, 1 / 4]]), np.zeros((1, 3)), beta=1.0)
    args = (problem, np.log(np.full((1, 2, 2), 0.5)), np.array([[[1.0], [7.0], [2.0]]]), np.array([[1.0, 0.0, 2.0]]))
    expected = -np.array([[[-1.5, 1.5], [-2.0, 2.0]]]) / 5
    assert step_gradient(*args, length_weighted=False) == pytest.approx(expected)
    # Weights 1, 1/2, 1/2 over 3 responses: EOS 1 (1/2, -1/2), then 2 (-1/2, 1/2) at each state.
    expected = -np.array([[[-0.5, 0.5], [-1.0, 1.0]]]) / 3
    assert step_gradient(*args, length_weighted=True) == pytest.approx(expected)


def test_returns_to_go_by_hand():
    # pi_ref uniform, pi(EOS) = 1/4 at first and 1/2 after "1", beta 2, gamma 1/2, r = (1, 2, 4).
    # u = -ln 2 for EOS, ln(3/2) for 1, 0 after. G of "EOS": 1 + 2 ln 2; of "1 EOS": 2, then 1 - 2 ln(3/2).
    tree = ResponseTree(2, 2)
    problem = Instance(tree, ((1,),), np.log([[1 / 2, 1 / 4, 1 / 4]]), np.array([[1.0, 2.0, 4.0]]), beta=2.0)
    returns = returns_to_go(problem, np.log([[[0.25, 0.75], [0.5, 0.5]]]), gamma=0.5)
    up = 2 * np.log(1.5)
    assert returns[0] == pytest.approx(np.array([[1 + 2 * np.log(2), 0], [1 - up, 2], [2 - up, 4]]))
