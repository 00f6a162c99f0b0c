"""Intervals, win rates and calibration by hand."""

import numpy as np
import pytest

from plumbob.core.statistics import calibration_error, compare, mean_interval, pass_at_k, proportion_interval


def test_a_mean_with_its_interval() -> None:
    # 1, 2, 3, 4: mean 2.5, variance 5/3, standard error sqrt(5/12) = 0.645497, times 1.959964 = 1.265151.
    found = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert found.mean == 2.5
    assert found.ci95 == pytest.approx([2.5 - 1.265151, 2.5 + 1.265151], abs=1e-5)
    with pytest.raises(ValueError, match="at least 2 values, given 1"):
        mean_interval([1.0])


def test_a_comparison_counts_each_prompt_once_and_a_tie_half() -> None:
    scores = np.array([[1.0, 3.0], [0.0, 0.0]])
    baseline = np.array([[2.0, 2.0], [0.0, -1.0]])
    # Prompt 0: margins -1, -1, 1, 1: gain 0, half won. Prompt 1: 0, 1, 0, 1: gain 0.5, (0.5 + 1 + 0.5 + 1) / 4 = 0.75.
    found = compare(scores, baseline)
    assert found.gain.mean == pytest.approx(0.25)
    assert found.win_rate.mean == pytest.approx(0.625)
    # Two prompts at 0.5 and 0.75: standard deviation 0.125 sqrt(2), over sqrt(2): 0.125.
    assert found.win_rate.ci95 == pytest.approx([0.625 - 0.125 * 1.959964, 0.625 + 0.125 * 1.959964])
    # Any pairs of (own, baseline's) sample count: the baseline against itself is an even match.
    assert compare(scores, scores).win_rate.mean == 0.5


def test_wilsons_interval() -> None:
    # 8 of 10, z^2 = 3.841459: centre (0.8 + 0.192073) / 1.384146 = 0.716740;
    # half 1.959964 / 1.384146 x sqrt(0.016 + 0.00960365) = 1.416010 x 0.160011 = 0.226577.
    found = proportion_interval(8, 10)
    assert found.mean == 0.8
    assert found.ci95 == pytest.approx([0.490163, 0.943317], abs=1e-5)
    # All of 10: the interval stays below 1: 10 / (10 + z^2) = 0.722467.
    assert proportion_interval(10, 10).ci95 == pytest.approx([0.722467, 1.0], abs=1e-5)


def test_calibration_by_hand() -> None:
    # sigmoid(ln 3) = 0.75. In four pairs predicted at 0.75 the chosen always wins: in the bin of 0.75, predicted 0.75
    # and observed 1; in that of 0.25 (the same pairs the other way round), 0.25 and 0. Both are off by 0.25.
    assert calibration_error(np.full(4, np.log(3.0))) == pytest.approx(0.25)
    # Three of four right at 0.75, one wrong (margin -ln 3): both bins are exact.
    assert calibration_error(np.log(3.0) * np.array([1, 1, 1, -1])) == pytest.approx(0.0, abs=1e-12)
    # Margins of 0 predict 0.5, and both orders together are observed at 0.5.
    assert calibration_error(np.zeros(5)) == pytest.approx(0.0)
    # A sure and right prediction is in the last bin, not past it.
    assert calibration_error(np.array([1000.0])) == pytest.approx(0.0)


def test_the_chance_that_one_of_k_is_right() -> None:
    """Of 5 samples with 0, 1, 3 and 5 right, two are drawn: 1 - C(5, 2)/10, - C(4, 2)/10, - C(2, 2)/10, and 1."""
    found = pass_at_k(np.array([0, 1, 3, 5]), 5, 2)
    assert found == pytest.approx([0.0, 0.4, 0.9, 1.0])
    # One draw is right as often as the samples are; of all five one is right where any is.
    assert pass_at_k(np.array([0, 1, 3, 5]), 5, 1) == pytest.approx([0.0, 0.2, 0.6, 1.0])
    assert pass_at_k(np.array([0, 1]), 5, 5) == pytest.approx([0.0, 1.0])
    # C(1000, 500) is near what a float can hold; half of the samples have the one that is right.
    assert pass_at_k(np.array([1]), 1000, 500) == pytest.approx([0.5])
    with pytest.raises(ValueError, match="pass@6"):
        pass_at_k(np.array([1]), 5, 6)
