"""The number of cases that a difference takes: by hand, and by drawing."""

import numpy as np
import pytest

from plumbob.core.noise.differences import MeasuredMetric, difference
from plumbob.core.noise.power import cases_needed, smallest_seen


def test_cases_needed_by_hand() -> None:
    # (1.959964 + 0.841621)^2 = 7.84888, times (2 / 0.5)^2 = 16: 125.58, so 126.
    assert cases_needed(spread=2.0, difference=0.5) == 126
    assert cases_needed(spread=2.0, difference=-0.5) == 126
    assert cases_needed(spread=1.0, difference=0.0) is None
    assert cases_needed(spread=0.1, difference=10.0) == 2
    assert smallest_seen(spread=2.0, num_cases=126) == pytest.approx(2.801585 * 2 / 126**0.5)


def test_so_many_cases_show_it_four_times_in_five() -> None:
    num, rng = cases_needed(spread=1.0, difference=0.3), np.random.default_rng(0)
    assert num == 88
    draws = rng.normal(0.3, 1.0, size=(200, num))
    zeros = MeasuredMetric.of_prompts({str(case): 0.0 for case in range(num)})
    found = [
        difference(MeasuredMetric.of_prompts({str(case): float(gap) for case, gap in enumerate(row)}), zeros).p
        for row in draws
    ]
    # 80% give or take three standard errors of 200 draws, 2.8%.
    assert 0.715 < np.mean([p is not None and p < 0.05 for p in found]) < 0.885
