"""The rule `exact`: whether a response is the row's answer."""

from pathlib import Path

from plumbob.configs.settings.rules.reward_rules import ExactRule
from plumbob.reward.rules.right_answers.answers import expected_answers, is_exact
from plumbob.reward.rules.rule import Rule
from plumbob.reward.rules.rule_scorer import rule_opening
from plumbob.reward.scorer import Opening


def opening(part: ExactRule, folder: Path | None) -> Opening:
    return rule_opening(
        part, Rule(lambda text, answers: is_exact(text, answers, part), lambda row: expected_answers(row, part))
    )
