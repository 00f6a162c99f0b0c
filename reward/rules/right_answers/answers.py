"""Rules that compare a text with the right answer in the prompt's row."""

import math
import unicodedata
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from plumbob.configs.settings.rules.reward_rules import ExactRule, MathRule, NumericRule
from plumbob.data.reading.field_values import shown
from plumbob.data.records import RowError
from plumbob.reward.rules.right_answers.numbers import ANSWER_MARK, answer_number

_AROUND = " \t\n.,;:!?…\"'“”‘’«»`*_"


def expected_answers(row: Mapping[str, Any], rule: ExactRule) -> tuple[str, ...]:
    """What the row has as an answer, or as a list of them, each as it is compared. Raises RowError."""
    given = row[rule.column]
    answers = tuple(normalised(_text_of(one, rule.column), rule) for one in (given if _is_list(given) else [given]))
    if not answers or "" in answers:
        raise RowError(f"the column '{rule.column}' has {shown(given)}, of which nothing is left to compare with")
    return answers


def is_exact(text: str, answers: tuple[str, ...], rule: ExactRule) -> bool:
    return normalised(text, rule) in answers


def normalised(text: str, rule: ExactRule) -> str:
    """As the rule compares it: Unicode's compatibility form, small letters, single spaces, no punctuation around it.

    Without `normalise`, less the white space around it.
    """
    if not rule.normalise:
        return text.strip()
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(_AROUND)


# -------------------------------------------------------------------------------------------------------------- numbers


def expected_number(row: Mapping[str, Any], rule: NumericRule) -> Fraction:
    """The number of the row. Raises RowError where there is none."""
    given = row[rule.column]
    found = answer_number(_text_of(given, rule.column))
    if found is None:
        raise RowError(f"the column '{rule.column}' has {shown(given)}, in which there is no number to compare with")
    return found


def is_number(text: str, expected: Fraction, rule: NumericRule) -> bool:
    found = answer_number(text)
    return found is not None and abs(found - expected) <= Fraction(str(rule.tolerance))


# ---------------------------------------------------------------------------------------------------------- mathematics


def expected_formula(row: Mapping[str, Any], rule: MathRule) -> str:
    """The formula of the row, after `####` where that stands in it. Raises RowError where there is no text."""
    found = _text_of(row[rule.column], rule.column).rpartition(ANSWER_MARK)[2].strip()
    if not found:
        raise RowError(f"the column '{rule.column}' is blank, and nothing can be compared with it")
    return found


def math_value(rule: MathRule) -> Callable[[str, str], float]:
    """(text, the row's formula) -> 1 where they are equal, else 0; raises NotScored."""
    from plumbob.reward.rules.right_answers.mathematics import is_equal  # A second's work, of the process that values.

    return lambda text, expected: float(is_equal(text, expected))


def _text_of(value: Any, column: str) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not isinstance(value, str) and not is_number:
        raise RowError(f"the column '{column}' has {shown(value)}: expected a text or a number")
    return str(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)
