"""Student's t against its closed forms and its table."""

import math

import pytest

from plumbob.core.noise.student_t import t95, two_sided_p


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 2.5, 40.0])
def test_with_1_and_2_degrees_of_freedom_it_has_closed_forms(t: float) -> None:
    """Of 1 it is Cauchy's: 1 - 2 atan(t) / pi; of 2 it is 1 - t / sqrt(t^2 + 2). Both are even."""
    assert two_sided_p(t, 1) == pytest.approx(1 - 2 * math.atan(t) / math.pi, abs=1e-12)
    assert two_sided_p(-t, 2) == pytest.approx(1 - t / math.sqrt(t * t + 2), abs=1e-12)


@pytest.mark.parametrize(
    ("degrees", "t"), [(1, 12.7062), (4, 2.77645), (9, 2.26216), (30, 2.04227), (1000, 1.96234), (math.inf, 1.95996)]
)
def test_the_bounds_of_a_95_percent_interval_are_those_of_the_table(degrees: float, t: float) -> None:
    assert t95(degrees) == pytest.approx(t, abs=6e-6 * t)
