"""The rule `format`: whether a regular expression matches the whole of a response."""

from pathlib import Path

from plumbob.configs.settings.rules.reward_rules import FormatRule
from plumbob.reward.rules.rule import Rule
from plumbob.reward.rules.rule_scorer import rule_opening
from plumbob.reward.rules.text_rules import compiled, matches
from plumbob.reward.scorer import Opening


def opening(part: FormatRule, folder: Path | None) -> Opening:
    return rule_opening(part, Rule(lambda text, _: matches(text, part), check=lambda: compiled(part)))
