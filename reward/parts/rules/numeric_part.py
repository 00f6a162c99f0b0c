"""The rule `numeric`: whether a response ends in the row's number."""

from pathlib import Path

from plumbob.configs.settings.rules.reward_rules import NumericRule
from plumbob.reward.rules.right_answers.answers import expected_number, is_number
from plumbob.reward.rules.rule import Rule
from plumbob.reward.rules.rule_scorer import rule_opening
from plumbob.reward.scorer import Opening


def opening(part: NumericRule, folder: Path | None) -> Opening:
    return rule_opening(
        part, Rule(lambda text, number: is_number(text, number, part), lambda row: expected_number(row, part))
    )
