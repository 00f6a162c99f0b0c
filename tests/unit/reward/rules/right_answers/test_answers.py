"""Exact and numeric answers, by hand and on GSM8K."""

import gzip
import json
from fractions import Fraction
from typing import Any

import pytest

from plumbob.configs.settings.rules.reward_rules import ExactRule, MathRule, NumericRule
from plumbob.data.records import RowError
from plumbob.reward.open_part import part_opening
from plumbob.reward.rules.right_answers.numbers import answer_number
from tests.support.rule_values import rule_scorer, score_of, value_of
from tests.support.source_tree import ROOT

GSM8K = ROOT.parent / "shared/data/gsm8k-train.jsonl.gz"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("72", 72),
        ("It is 72.", 72),
        ("5 apples and 7 pears", 7),
        ("5, 6, 7", 7),
        ("#### 72", 72),
        ("7 then #### 72 (not 73)", 72),
        ("#### 1 #### 2", 2),
        ("-3", -3),
        ("−3.5", Fraction(-7, 2)),
        ("+3", 3),
        ("10-3", 3),  # An operator, no sign.
        ("f(x)-3", 3),
        ("COVID-19", 19),
        ("$1,234.50", Fraction("1234.5")),
        ("-$5", -5),
        ("$-5", -5),
        ("\\$5", 5),
        ("5€", 5),
        ("50%", 50),
        ("50\\%", 50),
        ("72km", 72),
        ("5²", 5),
        ("1,234,567", 1234567),
        ("1\u202f234", 1234),
        ("1{,}000", 1000),
        (".5", Fraction(1, 2)),
        ("answer...5", 5),
        ("007", 7),
        ("1.50", Fraction(3, 2)),
        ("1e3", 1000),
        ("2.5E-1", Fraction(1, 4)),
        ("3/4", Fraction(3, 4)),
        ("48/2=24", 24),
        ("**72**", 72),
        ("\\boxed{72}", 72),
        ("７２", 72),
        ("٧٢", 72),
        ("x2", None),
        ("H2O", None),
        ("9 and x2", 9),
        ("", None),
        ("none", None),
        ("7 #### none", None),
        ("1,00", None),
        ("1,0000", None),
        ("1.2.3", None),
        ("12/31/2026", None),
        ("1/0", None),
        ("9" * 101, None),
        ("1e9999", 1),  # 1, and letters behind it.
    ],
)
def test_the_number_that_a_text_ends_in(text: str, number: Fraction | int | None) -> None:
    assert answer_number(text) == number


@pytest.mark.parametrize(
    ("response", "answer", "settings", "value"),
    [
        ("So she has 1,000.", "#### 1000", {}, 1),
        ("#### 1000.00", 1000, {}, 1),
        ("a half, or .5", 0.5, {}, 1),
        ("999", "1,000", {}, 0),
        ("1000 of 1001", "1000", {}, 0),
        ("", "1000", {}, 0),
        ("3.14", "3.14159", {"tolerance": 0.01}, 1),
        ("3.12", "3.14159", {"tolerance": 0.01}, 0),
        ("0.3", 0.0, {"tolerance": 0.3}, 1),  # 0.3 as a binary number is a little less.
    ],
)
def test_numeric(response: str, answer: Any, settings: dict[str, Any], value: float) -> None:
    assert value_of("numeric", response, {"answer": answer}, **settings) == value


@pytest.mark.parametrize(
    ("response", "answer", "settings", "value"),
    [
        ("Paris", "Paris", {}, 1),
        (' "paris".\n', "Paris", {}, 1),
        ("New  York", "new york", {}, 1),
        ("ＰＡＲＩＳ", "Paris", {}, 1),
        ("e\u0301cole", "école", {}, 1),
        ("STRASSE", "straße", {}, 1),
        ("It is Paris", "Paris", {}, 0),
        ("Par is", "Paris", {}, 0),
        ("", "Paris", {}, 0),
        ("4", 4, {}, 1),
        ("4.0", 4, {}, 0),
        ("NYC", ["New York", "NYC"], {}, 1),
        ("Boston", ["New York", "NYC"], {}, 0),
        (" Paris\n", "Paris", {"normalise": False}, 1),
        ("paris", "Paris", {"normalise": False}, 0),
    ],
)
def test_exact(response: str, answer: Any, settings: dict[str, Any], value: float) -> None:
    assert value_of("exact", response, {"answer": answer}, **settings) == value


def test_another_column() -> None:
    assert value_of("exact", "b", {"answer": "a", "label": "B"}, column="label") == 1


@pytest.mark.parametrize(
    ("part", "answer", "message"),
    [
        (NumericRule(), "no number", "the column 'answer' has 'no number', in which there is no number"),
        (NumericRule(), float("nan"), "the column 'answer' has nan: expected a text or a number"),
        (NumericRule(), True, "has True: expected a text or a number"),
        (NumericRule(), ["1"], r"has \['1'\]: expected a text or a number"),
        (ExactRule(), "...", "has '...', of which nothing is left to compare with"),
        (ExactRule(), [], r"has \[\], of which nothing is left"),
        (ExactRule(), {"a": 1}, "has {'a': 1}: expected a text or a number"),
        (MathRule(), " \n", "the column 'answer' is blank"),
    ],
)
def test_a_row_without_an_answer_is_refused(part: Any, answer: Any, message: str) -> None:
    with pytest.raises(RowError, match=message):
        part_opening(part, None).check_row({"answer": answer})


@pytest.mark.skipif(not GSM8K.is_file(), reason="GSM8K is not there")
def test_every_answer_of_gsm8k_is_right_and_a_changed_number_is_wrong() -> None:
    with gzip.open(GSM8K, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    scorer = rule_scorer("numeric")
    assert len(rows) > 7000
    for row in rows:
        reasoning, _, number = row["answer"].rpartition("####")
        assert score_of(scorer, row["answer"], row).total == 1
        assert score_of(scorer, f"{reasoning}The answer is ${number.strip()}.00.", row).total == 1
        other = int(number.replace(",", "")) + 1
        assert score_of(scorer, f"{reasoning}#### {other:,}", row).total == 0
        assert score_of(scorer, f"{reasoning}The answer is {other}.", row).total == 0
