import itertools
import math

import numpy as np
import pytest

from plumbob.verify.optima.count_optima import (
    all_rankings,
    bradley_terry_information,
    chi_squared_point,
    fisher_error,
    lower_gamma,
    plackett_luce_logprobs,
    plackett_luce_loss,
    plackett_luce_scores,
)
from plumbob.verify.optima.offline_optima import exact_wins, logistic, pair_scores


def centred(x):
    return x - x.mean()


def drawn_wins(rewards, num_labels, rng):
    """Wins when every unordered pair is labelled `num_labels` times."""
    wins = np.zeros((len(rewards), len(rewards)))
    for i, j in itertools.combinations(range(len(rewards)), 2):
        wins[i, j] = rng.binomial(num_labels, 1 / (1 + np.exp(rewards[j] - rewards[i])))
        wins[j, i] = num_labels - wins[i, j]
    return wins


def test_bradley_terry_of_two_responses_by_hand():
    # 3 wins of 4: the log odds ln 3, information 4 * 3/4 * 1/4 on the difference.
    wins = np.array([[0.0, 3.0], [1.0, 0.0]])
    scores = pair_scores(wins, logistic())
    assert scores == pytest.approx([math.log(3) / 2, -math.log(3) / 2])
    information = bradley_terry_information(wins, scores)
    assert information == pytest.approx(0.75 * np.array([[1, -1], [-1, 1]]))
    assert fisher_error(np.array([0.5, 0.0]), np.array([0.0, 7.0]), information) == pytest.approx(0.75 * 7.5**2)


def test_fisher_error_of_maximum_likelihood_has_the_mean_of_chi_squared():
    rng, rewards = np.random.default_rng(0), np.random.default_rng(1).uniform(-1, 1, size=6)
    information = bradley_terry_information(200 * exact_wins(rewards), rewards)
    errors = [
        fisher_error(pair_scores(drawn_wins(rewards, 200, rng), logistic()), rewards, information) for _ in range(400)
    ]
    # Mean K - 1 = 5 with a standard error of sqrt(2 * 5 / 400) = 0.16.
    assert np.mean(errors) == pytest.approx(5, abs=0.6)
    assert max(errors) < chi_squared_point(5, 1 - 1e-6)


def test_plackett_luce_by_hand():
    # Weights 1, 2, 3: 3 > 2 > 1 has 3/6 * 2/3.
    scores = np.log([1.0, 2.0, 3.0])
    logprobs = plackett_luce_logprobs(scores, np.array([[2, 1, 0]]))
    assert np.exp(logprobs) == pytest.approx([1 / 3])
    rankings = all_rankings(3, 3)
    assert len(rankings) == 6
    assert np.exp(plackett_luce_logprobs(scores, rankings)).sum() == pytest.approx(1)


def test_plackett_luce_of_pairs_is_bradley_terry():
    rewards = np.random.default_rng(5).uniform(-1, 1, size=5)
    wins = drawn_wins(rewards, 30, np.random.default_rng(6))
    rankings = all_rankings(5, 2)
    counts = wins[rankings[:, 0], rankings[:, 1]]
    scores = plackett_luce_scores(rankings, counts, 5)
    assert scores == pytest.approx(pair_scores(wins, logistic()), abs=1e-9)
    information = plackett_luce_loss(rankings, counts, scores)[2]
    assert information == pytest.approx(bradley_terry_information(wins, scores))


def test_plackett_luce_slopes_and_exact_recovery():
    rewards = np.random.default_rng(7).uniform(-1, 1, size=5)
    rankings = all_rankings(5, 3)
    counts = np.exp(plackett_luce_logprobs(rewards, rankings))
    assert plackett_luce_scores(rankings, counts, 5) == pytest.approx(centred(rewards), abs=1e-9)
    at = np.random.default_rng(8).normal(size=5)
    _, gradient, hessian = plackett_luce_loss(rankings, counts, at)
    steps = 1e-6 * np.eye(5)
    for value_index, expected in ((0, gradient), (1, hessian)):
        ups = [plackett_luce_loss(rankings, counts, at + step)[value_index] for step in steps]
        downs = [plackett_luce_loss(rankings, counts, at - step)[value_index] for step in steps]
        numeric = np.array([(up - down) / 2e-6 for up, down in zip(ups, downs, strict=True)])
        assert numeric == pytest.approx(expected, abs=1e-7)


def test_chi_squared_points():
    # Two degrees: 1 - exp(-x / 2). One degree: the square of the normal's point; three decimals of printed tables.
    assert chi_squared_point(2, 0.999) == pytest.approx(-2 * math.log(0.001))
    assert chi_squared_point(1, 0.999) == pytest.approx(10.828, abs=5e-4)
    assert chi_squared_point(10, 0.999) == pytest.approx(29.588, abs=5e-4)
    assert math.erf(1.3) == pytest.approx(lower_gamma(0.5, 1.3**2))
    # Even degrees are a Poisson sum: P(chi^2_2n > x) = sum_{k < n} e^-x/2 (x/2)^k / k!.
    x = chi_squared_point(398, 0.999) / 2
    tail = sum(math.exp(k * math.log(x) - x - math.lgamma(k + 1)) for k in range(199))
    assert tail == pytest.approx(0.001)
