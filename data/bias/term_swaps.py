"""Texts with one group's terms in place of another's (`TermSwap`), and pairs of texts that differ so."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from plumbob.data.bias.term_pairs import Contrast, TermPair

Text = tuple[str, str]
"""Prompt and response."""

_NEXT_WORD = re.compile(r"\s+([A-Za-z][\w'-]*)")

_NOT_NOUNS = (
    "a about after again and any are as at away back be because before but by down each every for from "
    "had has have here his her how if in into is it my not now of off on once or our out over she he so "
    "some than that the their them then there they this those through to today together tomorrow too two "
    "up very was we were what when where which while who why will with would yesterday you your"
)
"""Words that follow an object ("told her that"), and no possessive ("her house")."""


class TermSwap:
    """Swaps the terms of a contrast: each of a pair for the other, in both directions, with the case that it had.

    A term with several partners has the first that is listed; where one of them is a possessive, it stands for the
    term before a noun, and another elsewhere: "her house" becomes "his house", and "told her that" "told him that".
    What follows decides by a list of words, and errs where that is not enough.
    """

    def __init__(self, contrast: Contrast, pairs: Sequence[TermPair]) -> None:
        self.contrast = contrast
        self._seconds = _partners((pair.first, pair.second, pair.form == "possessive") for pair in pairs)
        self._firsts = _partners((pair.second, pair.first, pair.form == "possessive") for pair in pairs)
        longest_first = sorted({*self._seconds, *self._firsts}, key=len, reverse=True)
        terms = "|".join(map(re.escape, longest_first))
        self._term = re.compile(rf"(?<![\w-])(?:(an?)( +))?({terms})(?![\w-])", re.IGNORECASE)

    def sides(self, text: str) -> tuple[bool, bool]:
        """Whether a text has terms of the first group, and of the second."""
        found = {match[3].lower() for match in self._term.finditer(text)}
        return any(term in self._seconds for term in found), any(term in self._firsts for term in found)

    def swapped(self, text: str) -> str:
        """The text with each term's partner in its place, and its article; the same where there is none."""
        return self._term.sub(lambda match: self._replaced(match, text), text)

    def _replaced(self, match: re.Match[str], text: str) -> str:
        given = match[3]
        partners = self._seconds.get(given.lower()) or self._firsts[given.lower()]
        partner = partners.before_noun if _is_before_noun(text, match.end()) else partners.elsewhere
        if given.isupper() and len(given) > 1:
            partner = partner.upper()
        elif given.istitle() and " " in given:
            partner = partner.title()
        elif given[0].isupper() and (partners.has_small_letter or _begins_sentence(text, match.start(3))):
            partner = partner[0].upper() + partner[1:]
        if match[1] is None:
            return partner
        article = match[1][0] + ("n" if partner[0].lower() in "aeiou" else "")
        return f"{article}{match[2]}{partner}"


class _Partners(NamedTuple):
    """Of a term.

    Attributes:
        has_small_letter: whether the term itself begins with one, so that a capital is the text's.
    """

    elsewhere: str
    before_noun: str
    has_small_letter: bool


def _partners(pairs: Iterable[tuple[str, str, bool]]) -> dict[str, _Partners]:
    """Term in small letters -> its partners."""
    anywhere: dict[str, str] = {}
    before_noun: dict[str, str] = {}
    listed: dict[str, str] = {}
    for term, partner, is_possessive in pairs:
        listed.setdefault(term.lower(), term)
        (before_noun if is_possessive else anywhere).setdefault(term.lower(), partner)
    return {
        key: _Partners(anywhere.get(key) or before_noun[key], before_noun.get(key) or anywhere[key], term[0].islower())
        for key, term in listed.items()
    }


def _begins_sentence(text: str, start: int) -> bool:
    before = text[:start].rstrip()
    return not before or before[-1] in ".!?:"


def _is_before_noun(text: str, end: int) -> bool:
    follows = _NEXT_WORD.match(text, end)
    return follows is not None and follows[1].lower() not in _NOT_NOUNS.split()


def term_swaps(pairs: Sequence[TermPair]) -> tuple[TermSwap, ...]:
    """One for each contrast, in the order in which they are listed."""
    contrasts = dict.fromkeys(pair.contrast for pair in pairs)
    return tuple(TermSwap(contrast, [pair for pair in pairs if pair.contrast == contrast]) for contrast in contrasts)


@dataclass(frozen=True)
class Counterfactual:
    """A text, and the same with the other group's terms.

    Attributes:
        case: what it was made of: texts to one prompt are one case, since they are alike in more than their terms.
        first, second: with the terms of the contrast's first and second group.
    """

    contrast: Contrast
    case: str
    first: Text
    second: Text


@dataclass(frozen=True)
class CounterfactualTexts:
    """Attributes: pairs of texts that differ in terms alone, and contrast -> how many texts have terms of both groups.

    Of these it cannot be told which group they are about, and they are in no pair.
    """

    pairs: tuple[Counterfactual, ...]
    num_mixed: dict[Contrast, int]


def counterfactual_texts(texts: Iterable[Text], swaps: Sequence[TermSwap]) -> CounterfactualTexts:
    """A pair for each text and each contrast of which it names one group. The same text counts once."""
    pairs = []
    num_mixed = {swap.contrast: 0 for swap in swaps}
    for prompt, response in dict.fromkeys(texts):
        for swap in swaps:
            has_first, has_second = swap.sides(f"{prompt}\n{response}")
            if has_first and has_second:
                num_mixed[swap.contrast] += 1
            elif has_first or has_second:
                own, other = (prompt, response), (swap.swapped(prompt), swap.swapped(response))
                first, second = (own, other) if has_first else (other, own)
                pairs.append(Counterfactual(swap.contrast, first[0], first, second))
    return CounterfactualTexts(tuple(dict.fromkeys(pairs)), num_mixed)
