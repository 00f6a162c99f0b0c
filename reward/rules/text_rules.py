"""Rules that look at a text alone: what it contains, its form, its length and its language."""

from typing import Any

import regex

from plumbob.configs.settings.rules.reward_rules import ContainsRule, FormatRule, LanguageRule, LengthRule, RegexRule
from plumbob.core.errors import UserError
from plumbob.data.texts.language_identifier import language_identifier
from plumbob.reward.rules.counting import has_letters, is_within, num_sentences, num_words
from plumbob.reward.rules.rule import NotScored


def contains(text: str, rule: ContainsRule) -> bool:
    """Whether all of the rule's texts are in it, or any of them."""
    searched, wanted = text, rule.texts
    if not rule.case_sensitive:
        searched, wanted = text.casefold(), tuple(one.casefold() for one in rule.texts)
    return (all if rule.match == "all" else any)(one in searched for one in wanted)


def length(text: str, rule: LengthRule) -> bool:
    """Whether it has as many words, sentences, or characters without white space around it, as it must have."""
    match rule.unit:
        case "words":
            return is_within(num_words(text), rule)
        case "sentences":
            return is_within(num_sentences(text), rule)
        case "characters":
            return is_within(len(text.strip()), rule)


# -------------------------------------------------------------------------------------------------- regular expressions


def matches(text: str, rule: RegexRule | FormatRule) -> bool:
    """Whether the pattern is found in it, or of a form matches all of it.

    A pattern such as `(a+)+b` tries a number of ways that doubles with each letter, hence the limit of time.

    Raises:
        NotScored: the search took too long.
    """
    pattern = compiled(rule)
    try:
        if isinstance(rule, FormatRule):
            return pattern.fullmatch(text.strip(), timeout=rule.timeout_s) is not None
        return pattern.search(text, timeout=rule.timeout_s) is not None
    except TimeoutError:
        raise NotScored(f"the search for {rule.pattern!r} took more than {rule.timeout_s:g} s") from None


def compiled(rule: RegexRule | FormatRule) -> Any:
    """The pattern. Raises UserError where it is none."""
    try:
        return regex.compile(rule.pattern, regex.DOTALL if isinstance(rule, FormatRule) else 0)
    except regex.error as error:
        raise UserError(
            f"reward.parts: {rule.label}: pattern={rule.pattern!r} is no regular expression: {error}; "
            f"a character that shall stand for itself is written with a backslash before it"
        ) from error


# ------------------------------------------------------------------------------------------------------------- language


NO_LANGUAGE = "zxx"
"""What the package calls a text that is in none, such as code."""


def is_in_language(text: str, rule: LanguageRule) -> bool:
    """Whether the language is the likeliest of the text; one without letters is in none."""
    return has_letters(text) and bool(language_identifier().classify(text)[0] == rule.language)


def check_language(rule: LanguageRule) -> None:
    """Raises UserError where the language is not one of those that are told apart."""
    known = sorted(set(language_identifier().labels) - {NO_LANGUAGE})
    if rule.language not in known:
        raise UserError(
            f"reward.parts: {rule.label}: language={rule.language} is not one of those that are told "
            f"apart: {', '.join(known)}"
        )
