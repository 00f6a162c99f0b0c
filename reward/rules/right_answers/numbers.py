"""Numbers in texts, exactly: signs, decimals, thousands, fractions; units, currencies and percents are left off."""

import re
from collections import deque
from decimal import Decimal
from fractions import Fraction

import regex

ANSWER_MARK = "####"
"""What stands before the answer in GSM8K (Cobbe et al. 2021, arXiv 2110.14168)."""

MAX_NUMBER_LENGTH = 100
"""Letters of a number; a longer one is none."""

_SPACES = "\u00a0\u2009\u202f"
_TOKEN = regex.compile(
    rf"""
    (?P<sign>(?<![\p{{L}}\p{{N}})\]])[-+−]\\?[$€£¥₹]?)?
    (?<![\p{{L}}\p{{N}}_])(?<!\p{{N}}[.,/])
    (?P<number>(?:\d(?:[\d.,/{_SPACES}]*\d)?)|(?<!\.)\.\d+)
    (?P<exponent>[eE][-+]?\d{{1,3}}(?![\p{{L}}\p{{N}}]))?
    """,
    regex.VERBOSE,
)
_PLAIN = re.compile(rf"\d+(?:\.\d+)?|\d{{1,3}}(?:[,{_SPACES}]\d{{3}})+(?:\.\d+)?|\.\d+")


def answer_number(text: str) -> Fraction | None:
    """The number that a text ends in: the last; or the first after the last `####`, where there is one.

    None where there is none, or where what looks like one is malformed, as `1,00` or `1.2.3` is.
    """
    _, mark, answer = text.replace("{,}", ",").rpartition(ANSWER_MARK)
    tokens = _TOKEN.finditer(answer)
    found = next(tokens, None) if mark else next(iter(deque(tokens, maxlen=1)), None)
    return None if found is None else _number_of(found["sign"] or "", found["number"], found["exponent"] or "")


def _number_of(sign: str, digits: str, exponent: str) -> Fraction | None:
    pieces = digits.split("/")
    if len(digits) > MAX_NUMBER_LENGTH or len(pieces) > 2 or not all(_PLAIN.fullmatch(piece) for piece in pieces):
        return None
    values = [Fraction(Decimal(re.sub(rf"[,{_SPACES}]", "", piece))) for piece in pieces]
    if values[1:] == [0]:
        return None
    value = values[0] / values[1] if values[1:] else values[0]
    value *= Fraction(Decimal(f"1{exponent}"))
    return -value if sign[:1] in ("-", "−") else value
