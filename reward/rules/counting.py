"""Words, sentences, paragraphs and items of a list, counted as a person would, without a model.

A count can be learnt from, so what is hidden counts too: a block of code, a heading and an item of a list are each a
sentence of their own, with a full stop or without.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import regex

from plumbob.configs.settings.rules.instructions import CountSettings

LETTER = r"[\p{L}\p{N}\p{M}]"
_LETTER = regex.compile(r"[\p{L}\p{N}]")
_WORD = regex.compile(rf"{LETTER}+(?:['’‑-]{LETTER}+)*")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_ITEM = re.compile(r"^\s*(?:[-*+•‣◦–]|\(?\d{1,3}[.)])\s+(?=\S)")
_HEADING = re.compile(r"^ {0,3}#{1,6}\s")
_END = regex.compile(r"(?:(?<![.!?…؟।])[.!?…؟।]++[\"'”’»)\]*_]*+(?=\s|$)|[。！？]++[」』”’]*+)")
_BEFORE_END = regex.compile(rf"(?:{LETTER}+\.)*{LETTER}+$")
_MOST_BEFORE_END = 40

BEFORE_NAMES = re.compile(r"approx|cf|dept|dr|e\.g|fig|gen|gov|i\.e|mr|mrs|ms|mt|pp|prof|rev|st|vol|vs", re.IGNORECASE)
"""Abbreviations after whose full stop a sentence continues."""

AT_ENDS = re.compile(r"a\.m|co|etc|inc|jr|ltd|p\.m|sr|u\.k|u\.s", re.IGNORECASE)
"""Those that end a sentence where a small letter does not follow."""


def is_within(count: int, bounds: CountSettings) -> bool:
    return (bounds.min is None or count >= bounds.min) and (bounds.max is None or count <= bounds.max)


def has_letters(text: str) -> bool:
    """Whether there is a letter or a digit in it."""
    return _LETTER.search(text) is not None


def num_words(text: str) -> int:
    """Runs of letters and digits; a hyphen or an apostrophe within joins: "twenty-one", "don't".

    What is written without spaces, as Chinese is, counts as one word between two marks of punctuation.
    """
    return sum(1 for _ in _WORD.finditer(text))


def num_items(text: str) -> int:
    """Lines that begin with a bullet (-, *, +, •) or a number (1. or 1)), and have something after it; not in code."""
    return sum(_ITEM.match(line) is not None for is_code, line in _lines(text) if not is_code)


def num_paragraphs(text: str) -> int:
    """Blocks of lines, of which blank lines divide one from another; a block of code is not divided."""
    return sum(has_letters(block.text) for block in _blocks(text, divides_items=False))


def num_sentences(text: str) -> int:
    """Pieces that end with . ! ? or …, or their like in other scripts, and are followed by a space or the line's end.

    An abbreviation, an initial, a number's point and three dots before a small letter end none.
    """
    return sum(
        has_letters(block.text) if block.is_code else _sentences_of(" ".join(block.lines))
        for block in _blocks(text, divides_items=True)
    )


# --------------------------------------------------------------------------------------------------------------- blocks


@dataclass
class _Block:
    is_code: bool
    lines: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def _lines(text: str) -> Iterator[tuple[bool, str]]:
    """(whether it is code, line) of each; the fences of a block of code belong to it."""
    fence = None
    for line in text.splitlines():
        mark = _FENCE.match(line)
        yield fence is not None or mark is not None, line
        if fence is None:
            fence = mark[1] if mark else None
        elif line.strip().startswith(fence) and set(line.strip()) == {fence[0]}:
            fence = None


def _blocks(text: str, divides_items: bool) -> Iterable[_Block]:
    """Lines that belong together: up to a blank line, code; also an item or a heading where asked."""
    block = _Block(False)
    for is_code, line in _lines(text):
        begins_anew = divides_items and not is_code and (_ITEM.match(line) or _HEADING.match(line))
        if begins_anew or (divides_items and is_code != block.is_code) or not (is_code or line.strip()):
            yield block
            block = _Block(is_code)
        block.lines.append(_ITEM.sub("", line) if divides_items and not is_code else line)
        if divides_items and not is_code and _HEADING.match(line):
            yield block
            block = _Block(False)
    yield block


# ------------------------------------------------------------------------------------------------------------ sentences


def _sentences_of(text: str) -> int:
    count, start = 0, 0
    for end in _END.finditer(text):
        if _ends_sentence(text, end.start(), end.group(), end.end()):
            count += has_letters(text[start : end.end()])
            start = end.end()
    return count + has_letters(text[start:])


def _ends_sentence(text: str, at: int, mark: str, end: int) -> bool:
    following = text[end : end + 2].strip()
    if mark.startswith(("..", "…")) and following.islower():
        return False
    if not mark.startswith(".") or not following:
        return True
    before = _BEFORE_END.search(text[max(0, at - _MOST_BEFORE_END) : at])
    word = "" if before is None else before.group()
    if AT_ENDS.fullmatch(word):
        return not following.islower()
    is_initial = len(word) == 1 and word.isupper() and word != "I"
    return not is_initial and not BEFORE_NAMES.fullmatch(word)
