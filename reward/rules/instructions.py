"""Instructions that a program can verify: of each, when a response keeps it (arXiv 2311.07911)."""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import regex
from pydantic import TypeAdapter, ValidationError

from plumbob.configs.settings.rules.instructions import (
    Avoid,
    EndsWith,
    Instruction,
    Items,
    JsonOnly,
    Lowercase,
    Mention,
    NoCommas,
    Paragraphs,
    Quoted,
    Sentences,
    StartsWith,
    Uppercase,
    WithoutLetter,
    Words,
)
from plumbob.configs.settings.rules.reward_rules import InstructionsRule
from plumbob.data.records import RowError
from plumbob.reward.rules.counting import (
    LETTER,
    has_letters,
    is_within,
    num_items,
    num_paragraphs,
    num_sentences,
    num_words,
)
from plumbob.reward.rules.json_text import is_json_alone

QUOTATION_MARKS = (('"', '"'), ("“", "”"), ("„", "“"), ("«", "»"), ("»", "«"), ("「", "」"), ("『", "』"))
COMMAS = frozenset(",，、،﹐﹑")
_WITHOUT_SPACES = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
_ROW = TypeAdapter(tuple[Instruction, ...])


def share_kept(text: str, instructions: Sequence[Instruction], rule: InstructionsRule) -> float:
    """The share of the instructions that the text keeps; of `all_or_nothing` 1 or 0."""
    kept = [is_kept(text, one) for one in instructions]
    return float(all(kept)) if rule.all_or_nothing else sum(kept) / len(kept)


def expected_instructions(row: Mapping[str, Any], rule: InstructionsRule) -> tuple[Instruction, ...]:
    """Those of the settings and those of the row. Raises RowError where the row's are malformed, or there are none."""
    found = rule.instructions + (() if rule.column is None else _of_row(row[rule.column], rule.column))
    if not found:
        raise RowError(f"the column '{rule.column}' has no instruction, and the settings have none")
    return found


def _of_row(given: Any, column: str) -> tuple[Instruction, ...]:
    try:
        listed = json.loads(given) if isinstance(given, str) else given
        # A column of lists in Parquet gives each of their elements all keys, those that it lacks as null.
        return _ROW.validate_python(
            [{name: value for name, value in one.items() if value is not None} for one in listed]
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise RowError(f"the column '{column}': instruction {field}: {first['msg']}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RowError(
            f'the column \'{column}\' has no list of instructions such as [{{"kind": "sentences", "max": 1}}]'
        ) from error


def is_kept(text: str, instruction: Instruction) -> bool:
    """Whether the text keeps it. One without a letter or a digit, as an empty one is, keeps none."""
    if not has_letters(text):
        return False
    whole, folded = text.strip(), text.strip().casefold()
    match instruction:
        case Words():
            return is_within(num_words(text), instruction)
        case Sentences():
            return is_within(num_sentences(text), instruction)
        case Paragraphs():
            return is_within(num_paragraphs(text), instruction)
        case Items():
            return is_within(num_items(text), instruction)
        case Lowercase():
            return _has_case(text, ("Ll",)) and not _has_case(text, ("Lu", "Lt"))
        case Uppercase():
            return _has_case(text, ("Lu",)) and not _has_case(text, ("Ll", "Lt"))
        case WithoutLetter(letter=letter):
            return _base_letters(letter)[0] not in _base_letters(text)
        case Mention(text=phrase, min=least):
            return _num_mentions(text, phrase) >= least
        case Avoid(texts=phrases):
            return not any(_num_mentions(text, phrase) for phrase in phrases)
        case StartsWith(text=beginning):
            return folded.startswith(beginning.strip().casefold())
        case EndsWith(text=ending):
            return folded.endswith(ending.strip().casefold())
        case Quoted():
            return len(whole) > 2 and (whole[0], whole[-1]) in QUOTATION_MARKS
        case NoCommas():
            return COMMAS.isdisjoint(text)
        case JsonOnly():
            return is_json_alone(text)
        case _:
            assert_never(instruction)


def _has_case(text: str, categories: tuple[str, ...]) -> bool:
    return any(unicodedata.category(letter) in categories for letter in text)


def _base_letters(text: str) -> str:
    """Small letters with their accents behind them: é is e and an accent."""
    return unicodedata.normalize("NFKD", text).lower()


def _num_mentions(text: str, phrase: str) -> int:
    """How often the phrase stands in the text as a whole: "art" is not in "party". White space of any width is one."""
    words = phrase.split() or [phrase]
    before = "" if _WITHOUT_SPACES.match(words[0][0]) else rf"(?<!{LETTER})"
    behind = "" if _WITHOUT_SPACES.match(words[-1][-1]) else rf"(?!{LETTER})"
    pattern = before + r"\s+".join(map(regex.escape, words)) + behind
    return len(regex.findall(pattern, text, regex.IGNORECASE))
