"""The rule `language`: whether a response is in a language."""

from pathlib import Path

from plumbob.configs.settings.rules.reward_rules import LanguageRule
from plumbob.reward.rules.rule import Rule
from plumbob.reward.rules.rule_scorer import rule_opening
from plumbob.reward.rules.text_rules import check_language, is_in_language
from plumbob.reward.scorer import Opening


def opening(part: LanguageRule, folder: Path | None) -> Opening:
    return rule_opening(part, Rule(lambda text, _: is_in_language(text, part), check=lambda: check_language(part)))
