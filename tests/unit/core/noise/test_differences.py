"""Differences of two measurements, judged by hand."""

import math

import pytest

from plumbob.core.noise.differences import Difference, MeasuredMetric, difference, larger_than_noise
from plumbob.core.noise.student_t import t95


def of_prompts(*values: float, first: int = 0) -> MeasuredMetric:
    return MeasuredMetric.of_prompts({f"prompt {first + index}": value for index, value in enumerate(values)})


def test_on_the_same_prompts_it_is_paired() -> None:
    """Gaps 1, 1, 2, 1, 2: mean 1.4, variance (3 x 0.16 + 2 x 0.36) / 4 = 0.3, error sqrt(0.3 / 5), t(4) = 2.776445."""
    found = difference(of_prompts(1, 2, 3, 4, 5), of_prompts(0, 1, 1, 3, 3))
    half = 2.776445 * math.sqrt(0.06)
    assert (found.method, found.num_prompts, found.value) == ("paired", 5, pytest.approx(1.4))
    assert (found.low, found.high) == (pytest.approx(1.4 - half, abs=1e-5), pytest.approx(1.4 + half, abs=1e-5))
    assert found.p is not None and 0.001 < found.p < 0.01  # t = 1.4 / 0.244949 = 5.7155, and t(4) = 4.6041 at 0.01.


def test_pairing_takes_away_what_prompts_have_in_common() -> None:
    """Prompts of 0 to 90 that all rise by about 1: the same values on other prompts tell nothing."""
    before = [10.0 * number for number in range(10)]
    after = [value + 1 + 0.1 * (-1) ** number for number, value in enumerate(before)]
    paired, unpaired = (difference(of_prompts(*after, first=first), of_prompts(*before)) for first in (0, 100))
    assert (paired.value, unpaired.value) == (pytest.approx(1.0), pytest.approx(1.0))
    assert paired.p is not None and paired.p < 1e-6
    assert unpaired.p is not None and unpaired.p > 0.9


def test_on_other_prompts_it_is_welchs() -> None:
    """Variances 2.5 and 10 over 5 each: squares 0.5 + 2 = 2.5, degrees 2.5^2 / (0.5^2 / 4 + 2^2 / 4) = 100 / 17."""
    found = difference(of_prompts(1, 2, 3, 4, 5), of_prompts(2, 4, 6, 8, 10, first=50))
    assert (found.method, found.value) == ("unpaired", -3.0)
    assert found.low is not None and found.high is not None
    assert (found.high - found.low) / 2 == pytest.approx(t95(100 / 17) * math.sqrt(2.5))


def test_of_means_with_errors_the_errors_add_in_squares() -> None:
    """Of 26 prompts 0.4 and 0.4 give 0.4 sqrt(2), of (2 x 0.16)^2 / (2 x 0.16^2 / 25) = 50 degrees; t(50) is 2.0086.

    Of so many that t is z, 0.3 and 0.4 give 0.5: a difference of 1 is two of them, p = erfc(sqrt(2)).
    """
    few = difference(MeasuredMetric(3.0, 0.4, 26), MeasuredMetric(2.0, 0.4, 26))
    half = 2.00856 * 0.4 * math.sqrt(2)
    assert (few.method, few.low, few.high) == (
        "intervals",
        pytest.approx(1 - half, abs=1e-5),
        pytest.approx(1 + half, abs=1e-5),
    )
    many = difference(MeasuredMetric(3.0, 0.3, 10**6), MeasuredMetric(2.0, 0.4, 10**6))
    assert many.p == pytest.approx(0.0455003, abs=1e-6)


def test_of_a_value_alone_and_of_few_prompts_nothing_is_said() -> None:
    unknown = Difference(pytest.approx(0.1), None, None, None, "none")
    assert difference(MeasuredMetric(0.5, None, 9), MeasuredMetric(0.4, 0.1, 9)) == unknown
    assert difference(MeasuredMetric(0.5, 0.1, 4), MeasuredMetric(0.4, 0.1, 9)) == unknown
    assert difference(MeasuredMetric(0.5, 0.1), MeasuredMetric(0.4, 0.1, 9)) == unknown
    assert difference(of_prompts(1, 2, 3), of_prompts(0, 1, 2)).method == "none"


def test_measurements_without_spread_are_judged_by_the_permutation_test() -> None:
    """All of 5 prompts gain 2: of the 2^5 ways to exchange the sides 2 tell them apart so, p = 1/16: maybe chance.

    Of 6 it is 1/32. On other prompts, 5 of 5 against 0 of 5: 2 of the 10! / (5! 5!) = 252 ways.
    """
    same, five = (
        difference(of_prompts(*[v + by for v in (1, 2, 3, 4, 5)]), of_prompts(1, 2, 3, 4, 5)) for by in (0, 2)
    )
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    assert five == Difference(2.0, None, None, 1 / 16, "paired", 5)
    six = difference(of_prompts(*[1] * 6), of_prompts(*[0] * 6))
    assert larger_than_noise([five]) == [False] and six.p == 1 / 32 and larger_than_noise([six]) == [True]
    apart = difference(of_prompts(*[1] * 5), of_prompts(*[0] * 5, first=50))
    assert apart == Difference(1.0, None, None, pytest.approx(1 / 126), "unpaired")
    # Gaps of 0.1 + 0.2 - 0.3 and the like differ by the rounding of sums alone.
    rounded = difference(of_prompts(0.3, 0.5, 0.7, 0.9, 1.1), of_prompts(0.1, 0.3, 0.5, 0.7, 0.9))
    assert (rounded.low, rounded.p) == (None, 1 / 16)


def test_of_many_differences_holms_procedure_leaves_those_that_chance_does_not_make() -> None:
    """0.01 <= 0.05 / 3 stays; 0.03 > 0.05 / 2 ends it, though alone it would be below 0.05."""
    found = [Difference(1.0, 0.0, 2.0, p, "paired", 9) for p in (0.04, 0.01, 0.03)]
    unknown = Difference(1.0, None, None, None, "none")
    assert larger_than_noise([found[0], unknown, found[1], found[2]]) == [False, False, True, False]
    assert larger_than_noise([found[0]]) == [True]
    assert larger_than_noise([]) == []


def test_its_own_interval_is_students_over_prompts_and_normal_elsewhere() -> None:
    """1 to 5: mean 3, error sqrt(2.5 / 5), t(4)."""
    low, high = of_prompts(1, 2, 3, 4, 5).ci95 or (0, 0)
    assert (low + high) / 2 == pytest.approx(3) and (high - low) / 2 == pytest.approx(
        2.776445 * math.sqrt(0.5), abs=1e-5
    )
    assert MeasuredMetric(1.0, 0.5).ci95 == (pytest.approx(1 - 0.979982), pytest.approx(1 + 0.979982))
    assert MeasuredMetric(1.0).ci95 is None
    with pytest.raises(ValueError, match="found none"):
        MeasuredMetric.of_prompts({})
