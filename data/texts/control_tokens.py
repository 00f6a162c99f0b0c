"""Control tokens, such as `</s>` or `<|im_start|>`: which a tokenizer has, and text that spells them and means letters.

A tokenizer makes a control token of every text that spells one. What a template writes is meant so, what a person
writes is not: it could open a turn of the system's, or end its own. So where a text comes from a file, `MARK` is put
before each control token that it spells, and says that letters are meant; `data.texts.codec` reads it. It is one of
Unicode's noncharacters, which are for a program's own use and stand in no text; one that does is taken out.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any

from plumbob.data.records import RowError
from plumbob.data.texts.tokenizer import Tokenizer

MARK = "\ufdd0"
ESCAPED_MARKS = ("\\ufdd0", "%EF%B7%90")
"""How programs write the mark where they escape what is not ASCII or not printable. Nothing reads it then."""


class SpeltTokens:
    """Control tokens by their text alone."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._spelt = any_of(tokens)

    def marked(self, text: str) -> str:
        """A person's text, each control token that it spells marked as letters."""
        return self._spelt.sub(lambda found: MARK + found[0], text.replace(MARK, ""))

    def marked_within(self, value: Any) -> Any:
        """The same of all texts in a value: lists, and the names and values of mappings too."""
        match value:
            case str():
                return self.marked(value)
            case list():
                return [self.marked_within(item) for item in value]
            case dict():
                return {self.marked_within(name): self.marked_within(item) for name, item in value.items()}
            case _:
                return value


class ControlTokens(SpeltTokens):
    """Those of a tokenizer: what it marks as special, and `others` that it was given.

    Attributes:
        ids: text -> id.
    """

    def __init__(self, tokenizer: Tokenizer, others: Collection[str] = ()) -> None:
        added = tokenizer.added_tokens_decoder
        self.ids = {
            token.content: int(id_)
            for id_, token in added.items()
            if token.content and (token.special or token.content in others)
        }
        super().__init__(tuple(self.ids))
        self._unknown_id = tokenizer.unk_token_id
        self._added = {token.content: token for token in added.values()}
        self._marked = re.compile(f"{MARK}?(?:{self._spelt.pattern})")

    def spelt_as_ids(self, text: str, ids: Sequence[int]) -> bool:
        """Whether `ids`, of a text that is letters, have a control token that it spells. An unknown letter is none."""
        return bool(({self.ids[token] for token in self._spelt.findall(text)} - {self._unknown_id}).intersection(ids))

    def cut(self, text: str) -> list[str]:
        """The text in parts, cut within each control token that it spells, which no part then spells."""
        parts, start = [], 0
        for found in self._spelt.finditer(text):
            parts.append(text[start : found.start() + 1])
            start = found.start() + 1
        return [*parts, text[start:]]

    def pieces(self, text: str) -> list[tuple[str, bool]]:
        """The text cut into (a control token, True) and (letters, False); the marks are gone.

        So are those whose token a template has cut off, as one that splits an answer does.

        Space that a control token takes in is no part of the letters beside it.
        """
        pieces: list[tuple[str, bool]] = []
        letters, start = "", 0
        for found in self._marked.finditer(text):
            letters += text[start : found.start()]
            start = found.end()
            if found[0].startswith(MARK):
                letters += found[0].removeprefix(MARK)
                continue
            pieces += [(letters, False), (found[0], True)]
            letters = ""
        pieces.append((letters + text[start:], False))
        cleaned = self._without_taken_space([(unmarked(piece), is_control) for piece, is_control in pieces])
        return [(piece, is_control) for piece, is_control in cleaned if piece]

    def _without_taken_space(self, pieces: Sequence[tuple[str, bool]]) -> list[tuple[str, bool]]:
        result = list(pieces)
        for index, (piece, is_control) in enumerate(pieces):
            if is_control and self._added[piece].lstrip:
                result[index - 1] = (result[index - 1][0].rstrip(), False)
            if is_control and self._added[piece].rstrip:
                result[index + 1] = (result[index + 1][0].lstrip(), False)
        return result


def any_of(texts: Sequence[str]) -> re.Pattern[str]:
    """Finds any of them, the longest that begins at a place; nothing where there are none."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")


def checked_marks(written: str, given: Any) -> str:
    """What a template wrote. RowError where it has escaped marks of what it was given: the control tokens behind them
    would be meant."""
    if any(escaped in written for escaped in ESCAPED_MARKS) and _is_marked(given):
        raise RowError(
            "the row spells a control token of the model's in a text that the tokenizer's chat template escapes, so "
            "that its letters cannot be told from the token: leave the row out, or correct chat_template in the "
            "tokenizer's folder (`tojson` in place of a mapping as it is, without ensure_ascii)"
        )
    return written


def _is_marked(value: Any) -> bool:
    """Whether any text in the value has a mark: of lists and mappings as in `marked_within`."""
    match value:
        case str():
            return MARK in value
        case list() | tuple():
            return any(map(_is_marked, value))
        case dict():
            return any(_is_marked(name) or _is_marked(item) for name, item in value.items())
        case _:
            return False


def unmarked_within(value: Any) -> Any:
    """The same of all texts in a value: of lists and mappings as in `SpeltTokens.marked_within`."""
    match value:
        case str():
            return unmarked(value)
        case list():
            return [unmarked_within(item) for item in value]
        case dict():
            return {unmarked_within(name): unmarked_within(item) for name, item in value.items()}
        case _:
            return value


def unmarked(text: str) -> str:
    """The text as a person reads it."""
    return text.replace(MARK, "")
