"""The rule `contains`: whether texts stand in a response."""

from pathlib import Path

from plumbob.configs.settings.rules.reward_rules import ContainsRule
from plumbob.reward.rules.rule import Rule
from plumbob.reward.rules.rule_scorer import rule_opening
from plumbob.reward.rules.text_rules import contains
from plumbob.reward.scorer import Opening


def opening(part: ContainsRule, folder: Path | None) -> Opening:
    return rule_opening(part, Rule(lambda text, _: contains(text, part)))
