"""The rule `instructions`: the share of verifiable instructions that a response keeps."""

from pathlib import Path

from plumbob.configs.settings.rules.reward_rules import InstructionsRule
from plumbob.reward.rules.instructions import expected_instructions, share_kept
from plumbob.reward.rules.rule import Rule
from plumbob.reward.rules.rule_scorer import rule_opening
from plumbob.reward.scorer import Opening


def opening(part: InstructionsRule, folder: Path | None) -> Opening:
    return rule_opening(
        part, Rule(lambda text, asked: share_kept(text, asked, part), lambda row: expected_instructions(row, part))
    )
