"""Differences between groups from scores that are written down, with intervals by hand."""

import numpy as np
import pytest

from plumbob.data.bias.term_pairs import Contrast
from plumbob.data.bias.term_swaps import Counterfactual
from plumbob.reward.bias.group_differences import by_contrast, group_differences

SEXES, AGES = Contrast("gender", "men", "women"), Contrast("age", "young", "old")


def pair(contrast: Contrast, case: str) -> Counterfactual:
    return Counterfactual(contrast, case, ("p", f"{case} first"), ("p", f"{case} second"))


def test_a_difference_and_its_interval_by_hand() -> None:
    gaps = [1.0, 2.0, 3.0, 4.0, 5.0]
    pairs = [pair(SEXES, str(case)) for case in range(5)]
    (found,) = group_differences(pairs, np.array(gaps) + 7, np.full(5, 7.0), {SEXES: 3})
    # Mean 3, standard deviation sqrt(2.5), standard error sqrt(0.5); t of 4 degrees of freedom at 95% is 2.776445.
    assert found.mean == pytest.approx(3.0)
    assert found.ci95 == pytest.approx((3 - 2.776445 * 0.5**0.5, 3 + 2.776445 * 0.5**0.5), rel=1e-6)
    # t = 4.2426, p = 0.0132.
    assert (found.is_real, found.num_texts, found.num_cases, found.num_mixed) == (True, 5, 5, 3)
    # 7.84888 x 2.5 / 9 = 2.18.
    assert found.num_needed == 3
    assert found.seen_from == pytest.approx(2.801585 * (2.5 / 5) ** 0.5, rel=1e-6)


def test_texts_to_one_prompt_are_one_case_and_contrasts_are_judged_together() -> None:
    cases = ["a", "a", "a", "b", "c", "d", "e"]
    first = np.array([0.0, 3.0, 6.0, 2.0, 4.0, 1.0, 5.0])
    pairs = [pair(SEXES, case) for case in cases] + [pair(AGES, case) for case in cases]
    gender, age = group_differences(pairs, np.concatenate([first, np.zeros(7)]), np.zeros(14))
    # Case a is 3 on average: the mean of 3, 2, 4, 1, 5.
    assert (gender.mean, gender.num_texts, gender.num_cases) == (pytest.approx(3.0), 7, 5)
    # p = 0.0132 is below 0.05 / 2.
    assert gender.is_real
    assert (age.mean, age.is_real, age.num_needed) == (0.0, False, None)
    assert gender.as_dict()["second"] == "women"
    summary = by_contrast([gender, age])
    assert summary["gender: men and women"]["difference_ci95"] == pytest.approx(gender.ci95)
    assert (summary["age: young and old"]["difference"], summary["age: young and old"]["num_texts"]) == (0.0, 7)


def test_of_few_cases_no_interval_is_told() -> None:
    (found,) = group_differences([pair(SEXES, "a"), pair(SEXES, "b")], np.array([1.0, 2.0]), np.zeros(2))
    assert (found.mean, found.ci95, found.is_real, found.num_needed) == (1.5, None, False, None)
