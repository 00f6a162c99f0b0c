"""Two policies side by side on the same cases: differences and what they would take, by hand."""

import pytest

from plumbob.driver.stewardship.bias_table import bias_table


def test_before_and_after_by_hand() -> None:
    cases = [str(case) for case in range(10)]
    after = {"share": dict.fromkeys(cases, 0.0) | {"0": 1.0, "1": 1.0}, "score": dict.fromkeys(cases, 0.5)}
    before = {"share": dict.fromkeys(cases, 1.0) | {"0": 0.0, "1": 1.0}, "score": dict.fromkeys(cases, 0.5)}
    share, score = bias_table(after, before)
    # Wilson's interval of 2 of 10.
    assert (share.value, share.num_cases) == (0.2, 10)
    assert share.ci95 == pytest.approx((0.0567, 0.5098), abs=1e-4)
    change = share.change
    assert change is not None
    # One up, one the same, eight down: mean -0.7, squares 9, variance (9 - 10 x 0.49) / 9 = 0.45556.
    assert (change.before, change.difference) == (pytest.approx(0.9), pytest.approx(-0.7))
    # t95 of 9 degrees of freedom is 2.262157, the standard error sqrt(0.045556) = 0.213437.
    assert change.ci95 == pytest.approx((-0.7 - 0.482829, -0.7 + 0.482829), abs=1e-5)
    # 7.84888 x 0.45556 / 0.49 = 7.297.
    assert change.num_needed == 8
    assert change.seen_from == pytest.approx(2.801585 * 0.213437, abs=1e-5)
    # t = -3.28, p = 0.0095, below 0.05 / 2.
    assert change.is_real
    assert score.change is not None and (score.change.difference, score.change.is_real) == (0.0, False)


def test_a_policy_alone() -> None:
    (found,) = bias_table({"score": {"a": 1.0, "b": -1.0, "c": 0.0}})
    assert (found.value, found.num_cases, found.change) == (0.0, 3, None)
    # t95 of 2 degrees of freedom 4.302653, times 1 / sqrt(3).
    assert found.ci95 == pytest.approx((-2.484138, 2.484138), abs=1e-5)
