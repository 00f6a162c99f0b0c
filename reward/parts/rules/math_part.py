"""The rule `math`: whether a response's formula is equal to the row's."""

from pathlib import Path

from plumbob.configs.settings.rules.reward_rules import MathRule
from plumbob.reward.rules.bounded_process import BoundedProcess
from plumbob.reward.rules.right_answers.answers import expected_formula, math_value
from plumbob.reward.rules.rule import Rule
from plumbob.reward.rules.rule_scorer import rule_opening
from plumbob.reward.scorer import Opening


def opening(part: MathRule, folder: Path | None) -> Opening:
    return rule_opening(part, Rule(BoundedProcess(part, math_value).value, lambda row: expected_formula(row, part)))
