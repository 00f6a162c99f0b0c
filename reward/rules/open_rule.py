"""From a rule of the settings to the function that it is: the one place that asks which rule it is."""

from typing import assert_never

from plumbob.configs.settings.rules.reward_rules import (
    ContainsRule,
    ExactRule,
    FormatRule,
    InstructionsRule,
    JsonRule,
    LanguageRule,
    LengthRule,
    MathRule,
    NumericRule,
    RegexRule,
    RulePart,
)
from plumbob.reward.rules.bounded_process import BoundedProcess
from plumbob.reward.rules.instructions import expected_instructions, share_kept
from plumbob.reward.rules.json_text import SchemaCheck
from plumbob.reward.rules.right_answers.answers import (
    expected_answers,
    expected_formula,
    expected_number,
    is_exact,
    is_number,
)
from plumbob.reward.rules.rule import Rule
from plumbob.reward.rules.rule_scorer import RulePartScorer
from plumbob.reward.rules.text_rules import check_language, compiled, contains, is_in_language, length, matches
from plumbob.reward.scorer import Opening


def rule_opening(part: RulePart) -> Opening:
    """How the part becomes a scorer; all devices are the same to it."""
    rule = rule_of(part)
    return Opening(rule.check, lambda device: RulePartScorer(part, rule), rule.expected)


def rule_of(part: RulePart) -> Rule:
    match part:
        case ContainsRule():
            return Rule(lambda text, _: contains(text, part))
        case RegexRule() | FormatRule():
            return Rule(lambda text, _: matches(text, part), check=lambda: compiled(part))
        case LengthRule():
            return Rule(lambda text, _: length(text, part))
        case LanguageRule():
            return Rule(lambda text, _: is_in_language(text, part), check=lambda: check_language(part))
        case ExactRule():
            return Rule(lambda text, answers: is_exact(text, answers, part), lambda row: expected_answers(row, part))
        case NumericRule():
            return Rule(lambda text, number: is_number(text, number, part), lambda row: expected_number(row, part))
        case MathRule():
            return Rule(BoundedProcess(part).value, lambda row: expected_formula(row, part))
        case JsonRule():
            return Rule(BoundedProcess(part).value, check=lambda: SchemaCheck(part))
        case InstructionsRule():
            return Rule(lambda text, asked: share_kept(text, asked, part), lambda row: expected_instructions(row, part))
        case _:
            assert_never(part)
