import math

import numpy as np
import pytest

from plumbob.verify.optima.offline_optima import (
    averaged_ipo_optimum,
    dpo_optimum,
    exact_wins,
    flipped,
    hinge_loss,
    hinge_optimum,
    ipo_optimum,
    kto_gradient,
    length_tilted,
    logistic,
    orpo_loss,
    orpo_optimum,
    pair_loss,
    robust_wins,
    simpo_optimum,
    smooth_hinge,
    sppo_optimum,
    squared,
)
from plumbob.verify.optima.response_tree import ResponseTree, log_normalised, seeded_rewards, tilted, total_variation

TREE = ResponseTree(4, 3)
BETA = 0.4


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def setting(seed=0, num_responses=40):
    """A reference [K], rewards [K] and their exact wins [K, K]."""
    rewards = seeded_rewards(TREE, 1, seed)[0, :num_responses]
    return log_normalised(np.random.default_rng(seed + 50).normal(size=num_responses)), rewards, exact_wins(rewards)


def numeric_gradient(function, at, step=1e-6):
    steps = step * np.eye(len(at))
    return np.array([(function(at + s) - function(at - s)) / (2 * step) for s in steps])


def test_exact_wins_by_hand():
    wins = exact_wins(np.array([math.log(3.0), 0.0, 0.0]))
    expected = np.array([[0, 0.75, 0.75], [0.25, 0, 0.5], [0.25, 0.5, 0]])
    assert wins == pytest.approx(expected)


@pytest.mark.parametrize("loss", [logistic(), logistic(0.7), squared(1.5), smooth_hinge(0.5)])
def test_slopes_of_pair_losses(loss):
    _, _, wins = setting(num_responses=5)
    at = np.random.default_rng(0).normal(size=5)
    _, gradient, hessian = pair_loss(wins, at, loss)
    assert gradient == pytest.approx(numeric_gradient(lambda x: pair_loss(wins, x, loss)[0], at), abs=1e-9)
    assert hessian == pytest.approx(numeric_gradient(lambda x: pair_loss(wins, x, loss)[1], at), abs=1e-9)


def test_pair_losses_by_hand():
    # One pair, i beats j three times of four, h_i - h_j = 1.
    wins, scores = np.array([[0.0, 3.0], [1.0, 0.0]]), np.array([1.0, 0.0])
    for loss, at_plus_one, at_minus_one in [
        (logistic(0.5), math.log1p(math.exp(-0.5)), math.log1p(math.exp(1.5))),
        (squared(2.0), 1.0, 9.0),
        (smooth_hinge(0.1), 0.1 * math.log(2), 2.0),
    ]:
        value = pair_loss(wins, scores, loss)[0]
        assert value == pytest.approx(0.75 * at_plus_one + 0.25 * at_minus_one, abs=1e-8)
    assert hinge_loss(wins, scores) == pytest.approx(0.25 * 2)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_dpo_with_exact_wins_reaches_the_tilted_reference(seed):
    reference, rewards, wins = setting(seed)
    assert dpo_optimum(reference, wins, BETA) == pytest.approx(tilted(reference, rewards, BETA), abs=1e-9)


def test_dpo_needs_pairs_in_both_orders():
    reference, _, wins = setting(num_responses=4)
    wins[0, :] = 0.0
    with pytest.raises(ValueError, match="never the other way"):
        dpo_optimum(reference, wins, BETA)


def test_conservative_dpo():
    reference, rewards, wins = setting(1)
    # Two responses: beta (u_1 - u_0) is the logit of p' itself.
    pair = exact_wins(rewards[:2])
    noisy = 0.1 + 0.8 * pair[0, 1]
    policy = dpo_optimum(reference[:2] - np.logaddexp(*reference[:2]), flipped(pair, 0.1), BETA)
    log_ratio = (policy[0] - reference[0]) - (policy[1] - reference[1])
    assert BETA * log_ratio == pytest.approx(math.log(noisy / (1 - noisy)))
    # Forty: beyond two responses logits of p' do not add up, but at the optimum each response's expected wins agree.
    policy = dpo_optimum(reference, flipped(wins, 0.1), BETA)
    scores = BETA * (policy - reference)
    predicted = sigmoid(scores[:, None] - scores[None, :]).sum(1) - 0.5
    assert predicted == pytest.approx((0.1 + 0.8 * wins).sum(1) - 0.1, abs=1e-10)
    assert total_variation(policy, tilted(reference, rewards, BETA)) > 0.02


def test_robust_dpo_undoes_the_flips_exactly():
    reference, rewards, wins = setting(2)
    observed = robust_wins(flipped(wins, 0.1), 0.1)
    assert dpo_optimum(reference, observed, BETA) == pytest.approx(tilted(reference, rewards, BETA), abs=1e-9)
    with pytest.raises(ValueError, match="no optimum"):
        robust_wins(np.array([[0.0, 1.0], [0.0, 0.0]]), 0.1)


def test_ipo_closed_form():
    reference, _, wins = setting(3)
    win_rate = (wins.sum(1) + 0.5) / 40
    assert ipo_optimum(reference, wins, 0.2) == pytest.approx(log_normalised(reference + win_rate / 0.2), abs=1e-9)
    averaged = averaged_ipo_optimum(reference, wins, 0.2, TREE.num_tokens)
    assert np.exp(averaged).sum() == pytest.approx(1)
    per_token = (averaged - reference) / TREE.num_tokens - win_rate / 0.2
    assert np.ptp(per_token) == pytest.approx(0, abs=1e-9)


def test_length_tilt_by_hand():
    # Uniform reference over lengths 1 and 2: x / 2 + x^2 / 2 = 1 at x = 1; with score ln 2 on the first, x + x^2/2 = 1.
    assert np.exp(length_tilted(np.log([0.5, 0.5]), np.zeros(2), np.array([1.0, 2.0]))) == pytest.approx([0.5, 0.5])
    x = math.sqrt(3) - 1
    policy = length_tilted(np.log([0.5, 0.5]), np.array([math.log(2), 0.0]), np.array([1.0, 2.0]))
    assert np.exp(policy) == pytest.approx([x, x * x / 2])


def test_simpo():
    _, rewards, wins = setting(4)
    lengths = TREE.num_tokens
    plain = simpo_optimum(wins, lengths, beta=2.0, margin=0.0)
    assert np.ptp(plain / lengths - rewards / 2.0) == pytest.approx(0, abs=1e-9)
    # With a margin: the loss, with its own derivative, is stationary over policies, and differs.
    policy = simpo_optimum(wins, lengths, beta=2.0, margin=0.8)

    def loss(logits):
        means = 2.0 * log_normalised(logits) / lengths
        return (wins * np.log1p(np.exp(0.8 - means[:, None] + means[None, :]))).sum() / wins.sum()

    assert numeric_gradient(loss, policy) == pytest.approx(np.zeros(40), abs=1e-9)
    assert total_variation(policy, plain) > 0.01


def test_sppo():
    reference, _, wins = setting(4)
    policy = sppo_optimum(reference, wins, beta=0.3)

    def loss(logits):
        u = log_normalised(logits) - reference
        return (wins * ((u[:, None] - 1 / 0.6) ** 2 + (u[None, :] + 1 / 0.6) ** 2)).sum() / wins.sum()

    assert numeric_gradient(loss, policy) == pytest.approx(np.zeros(40), abs=1e-8)
    assert min(loss(policy + 0.1 * np.random.default_rng(i).normal(size=40)) for i in range(20)) > loss(policy)
    # Where no response is better than another nothing moves.
    assert sppo_optimum(reference, np.full((40, 40), 0.5), beta=0.3) == pytest.approx(reference)


def test_hinge_by_hand():
    # Two responses at p = 3/4: slope -3/4 + 1/4 until the difference is 1, 1/4 beyond. Loss 1/4 * 2.
    optimum = hinge_optimum(np.array([[0.0, 0.75], [0.25, 0.0]]))
    assert optimum.scores == pytest.approx([0.5, -0.5])
    assert (optimum.loss, optimum.lower_bound) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_hinge_equals_its_lower_bound_and_no_whole_scores_are_better(seed):
    _, _, wins = setting(seed, num_responses=4)
    optimum = hinge_optimum(wins)
    corners = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 4), axis=-1).reshape(-1, 4).astype(float)
    assert optimum.loss == pytest.approx(min(hinge_loss(wins, corner) for corner in corners), abs=1e-9)
    _, _, wins = setting(seed)
    optimum = hinge_optimum(wins)
    assert optimum.loss == pytest.approx(optimum.lower_bound, abs=1e-9)
    assert optimum.loss == pytest.approx(hinge_loss(wins, optimum.scores))
    assert np.ptp(optimum.scores - np.round(optimum.scores - optimum.scores[0])) == pytest.approx(0, abs=1e-9)


def test_orpo_loss_by_hand():
    # The first of two always wins; P = 1/2 with one token, 1/4^(1/2) = 1/2 with two, so both odds are 1:
    # ln 2 + weight ln 2. Gradient: -1 - weight / 2 / (1 - P) on l of the winner, + weight / 2 / (1 - P) on the other's.
    wins = np.array([[0.0, 1.0], [0.0, 0.0]])
    value, gradient = orpo_loss(wins, np.log([0.5, 0.25]), np.array([1.0, 2.0]), weight=0.3)
    assert value == pytest.approx(1.3 * math.log(2))
    assert gradient == pytest.approx([-1 - 0.3, 0.3 / 2])


@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_orpo_optimum_is_stationary_and_the_same_from_every_start(weight):
    _, _, wins = setting(5)
    optimum = orpo_optimum(wins, TREE.num_tokens, weight)

    def loss(logits):
        means = log_normalised(logits) / TREE.num_tokens
        odds = means - np.log(1 - np.exp(means))
        odds_ratio = np.log1p(np.exp(odds[None, :] - odds[:, None]))
        return (wins * (weight * odds_ratio - means[:, None])).sum() / wins.sum()

    assert numeric_gradient(loss, optimum.policy) == pytest.approx(np.zeros(40), abs=1e-9)
    assert optimum.loss == pytest.approx(loss(optimum.policy))
    assert optimum.disagreement < 1e-8
    assert min(loss(optimum.policy + 0.1 * np.random.default_rng(i).normal(size=40)) for i in range(20)) > optimum.loss


def test_kto_gradient():
    rng = np.random.default_rng(0)
    at, desirable, undesirable = rng.normal(size=5), rng.uniform(size=5), rng.uniform(size=5)

    def loss(u):
        good, bad = 1 - sigmoid(0.3 * (u - 0.2)), 1 - sigmoid(0.3 * (0.2 - u))
        return (desirable * good + undesirable * bad).sum()

    gradient = kto_gradient(at, desirable, undesirable, beta=0.3, reference_point=0.2)
    assert gradient == pytest.approx(numeric_gradient(loss, at), abs=1e-9)
    # A response that is more often desirable than not rises, whatever its u: no interior optimum.
    assert (np.sign(gradient) == np.sign(undesirable - desirable)).all()
