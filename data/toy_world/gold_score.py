"""The hand-written gold reward of the generated world: it draws the preferences, and no stage trains on it."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Literal

from plumbob.data.toy_world.language import ATTRIBUTES, EVASIVE, GUESSES, JOKES, NAMES, POLITE, RUDE, Attribute, facts

Kind = Literal["statement", "polite", "guess", "evasive", "rude", "joke"]
Words = tuple[str, str]

MAX_GOLD = 3.0
KIND_POINTS: dict[Kind, float] = {"polite": 0.5, "guess": -0.3, "evasive": -0.8, "rude": -1.2, "joke": -1.5}
RIGHT, WRONG, SILENT = 2.0, -2.0, -0.5
NAMED, TERSE, EXTRA, EXTRA_WRONG = 0.5, -0.8, 0.6, -1.0
FINISHED, UNFINISHED = 0.2, -1.0
STRANGE, REPEATED = -4.0, -6.0
LONG_WORDS, PER_LONG_WORD = 24, -0.1

_CAR = re.compile(r"\b(?:" + "|".join(NAMES) + r")\b")
_WORD = re.compile(r"<\w+>|\w+|[^\w\s]")
_ENDS = (".", "!", "?")


def gold_score(prompt: str, response: str) -> float:
    """How good a response is, between -3 and 3: 3 tanh(points / 3).

    Points: the asked fact right or wrong; a whole sentence about the car rather than a bare value; a further fact;
    politeness; an end. Off go guesses, evasion, rudeness, jokes, and, in proportion, word pairs that the language of
    the world does not have, word pairs said again, and words past 24.

    Raises:
        ValueError: the prompt is no question of this world.
    """
    car, attribute = _asked(prompt)
    words = _words(response)
    if not words:
        return -MAX_GOLD
    pairs = list(pairwise(words))
    points = _fact_points(car, attribute, response) + _form_points(words, pairs)
    points += sum(KIND_POINTS[kind] for kind in _kinds(pairs))
    return MAX_GOLD * math.tanh(points / MAX_GOLD)


def _asked(prompt: str) -> tuple[str, Attribute]:
    found = _CAR.search(prompt)
    if found:
        for attribute in ATTRIBUTES:
            if any(form.format(car=found[0]) in prompt for form in attribute.questions):
                return found[0], attribute
    raise ValueError(f"the gold reward is of responses to the generated world's questions only, not to {prompt!r}")


def _fact_points(car: str, asked: Attribute, response: str) -> float:
    """Points for what is stated. Two values for one thing are no response, nor is a fact about another car."""
    known = facts()[car]
    stated = {attribute.name: set(re.findall(attribute.pattern, response)) for attribute in ATTRIBUTES}
    cars = set(_CAR.findall(response))
    values = stated.pop(asked.name)
    extras = [value == known[name] for name, found in stated.items() for value in found]
    points = EXTRA_WRONG * extras.count(False)
    if not values:
        return points + SILENT
    if values != {known[asked.name]} or cars - {car}:
        return points + WRONG
    return points + RIGHT + (NAMED if cars else TERSE) + EXTRA * any(extras)


def _form_points(words: Sequence[str], pairs: Sequence[Words]) -> float:
    finish = FINISHED if words[-1] in _ENDS else UNFINISHED
    long = PER_LONG_WORD * max(0, len(words) - LONG_WORDS)
    if not pairs:
        return finish + long + STRANGE
    known = _language()
    strange = sum(pair not in known and pair[0] not in _ENDS for pair in pairs) / len(pairs)
    again = sum(count - 1 for count in Counter(pairs).values()) / len(pairs)
    return finish + long + STRANGE * strange + REPEATED * again


def _kinds(pairs: Sequence[Words]) -> set[Kind]:
    """The kinds of sentence of which there is a pair of words that no other kind has."""
    return {kind for pair in pairs for kind in [_language().get(pair)] if kind is not None and kind != "statement"}


def _words(text: str) -> list[str]:
    """Lower-case words and marks, with every car as `<car>` and every value as `<speed>`, `<seats>`, ..."""
    for attribute in ATTRIBUTES:
        text = re.sub(attribute.pattern, f"<{attribute.name}>", text)
    return [word.lower() for word in _WORD.findall(_CAR.sub("<car>", text))]


@cache
def _language() -> dict[Words, Kind | None]:
    """Pair of words -> the one kind of sentence that has it, or None where several do."""
    clauses = [
        form.format(it=subject, value=f"<{attribute.name}>")
        for attribute in ATTRIBUTES
        for form in attribute.statements
        for subject in ("the <car>", "it")
    ]
    sentences: list[tuple[Kind, str]] = [("statement", f"{clause}.") for clause in clauses]
    sentences += [("statement", f"<{a.name}>, and it <{a.name}>.") for a in ATTRIBUTES]
    sentences += [("guess", f"{guess} the <car>") for guess in GUESSES]
    fixed: dict[Kind, tuple[str, ...]] = {"polite": POLITE, "evasive": EVASIVE, "rude": RUDE, "joke": JOKES}
    for kind, texts in fixed.items():
        sentences += [(kind, text.format(car="<car>")) for text in texts]
    language: dict[Words, Kind | None] = {}
    for kind, text in sentences:
        for pair in pairwise(_words(text)):
            language[pair] = kind if language.get(pair, kind) == kind else None
    return language
