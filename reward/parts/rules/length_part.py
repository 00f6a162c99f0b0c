"""The rule `length`: whether a response is as long as it must be."""

from pathlib import Path

from plumbob.configs.settings.rules.reward_rules import LengthRule
from plumbob.reward.rules.rule import Rule
from plumbob.reward.rules.rule_scorer import rule_opening
from plumbob.reward.rules.text_rules import length
from plumbob.reward.scorer import Opening


def opening(part: LengthRule, folder: Path | None) -> Opening:
    return rule_opening(part, Rule(lambda text, _: length(text, part)))
