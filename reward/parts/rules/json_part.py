"""The rule `json`: whether a response is JSON, and fulfils a schema."""

from pathlib import Path

from plumbob.configs.settings.rules.reward_rules import JsonRule
from plumbob.reward.rules.bounded_process import BoundedProcess
from plumbob.reward.rules.json_text import SchemaCheck, json_value
from plumbob.reward.rules.rule import Rule
from plumbob.reward.rules.rule_scorer import rule_opening
from plumbob.reward.scorer import Opening


def opening(part: JsonRule, folder: Path | None) -> Opening:
    return rule_opening(part, Rule(BoundedProcess(part, json_value).value, check=lambda: SchemaCheck(part)))
