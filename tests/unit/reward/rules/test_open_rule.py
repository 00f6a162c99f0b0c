"""All kinds of rules together: each one opens, and none is slow, random or broken by what a policy may write."""

import time
from typing import Any, get_args

import pytest

from plumbob.configs.settings.rules.reward_rules import RulePart
from tests.support.rule_values import rule_scorer, score_of

BOUND_S = 1.0

PARTS: list[dict[str, Any]] = [
    {"kind": "contains", "texts": ["tea"], "case_sensitive": False},
    {"kind": "regex", "pattern": r"\bte+a\b"},
    {"kind": "format", "pattern": "<think>.*</think>.*"},
    {"kind": "length", "unit": "words", "max": 5},
    {"kind": "length", "unit": "sentences", "max": 5},
    {"kind": "language", "language": "en"},
    {"kind": "exact"},
    {"kind": "numeric"},
    {"kind": "math", "timeout_s": BOUND_S},
    {"kind": "json", "json_schema": {"type": "object"}, "timeout_s": BOUND_S},
    {
        "kind": "instructions",
        "instructions": [
            {"kind": "sentences", "max": 1},
            {"kind": "paragraphs", "max": 1},
            {"kind": "items", "min": 3},
            {"kind": "lowercase"},
            {"kind": "uppercase"},
            {"kind": "without-letter", "letter": "e"},
            {"kind": "mention", "text": "green tea"},
            {"kind": "avoid", "texts": ["a a"]},
            {"kind": "starts-with", "text": "a"},
            {"kind": "ends-with", "text": "a"},
            {"kind": "quoted"},
            {"kind": "no-commas"},
            {"kind": "json-only"},
        ],
    },
]
HOSTILE = {
    "empty": "",
    "blank": " \n\t",
    "letters": "a" * 100_000,
    "words": "green tea " * 10_000,
    "full stops": "." * 99_999 + "x",
    "closing marks": "a." + '"' * 99_997 + "x",
    "initials": "A. " * 33_000,
    "spaces": "a" + " " * 99_998 + "b",
    "lines": "\n" * 100_000,
    "items": "- a\n" * 25_000,
    "fences": "```\n" * 25_000,
    "digits": "9" * 100_000,
    "commas": "1," * 50_000,
    "separators": "1" + "," * 99_998 + "x",
    "marks": "#" * 100_000,
    "signs": "-$" * 50_000,
    "dollars": "$x$ " * 25_000,
    "boxes": "\\boxed{" * 14_000,
    "brackets": "[" * 100_000,
    "objects": '{"a":' * 20_000,
    "tags": "<think>" * 14_000,
    "ligatures": "ﷺ" * 30_000,
    "accents": "e" + "\u0301" * 99_999,
    "joined emoji": "👩‍👩‍👧" * 20_000,
    "right to left": "שלום، " * 16_000,
    "NUL": "\0a" * 50_000,
    "half a surrogate pair": "\ud800" * 1000,
}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part['kind']}-{part.get('unit', '')}")
def test_a_hostile_response_is_worth_a_number_within_a_second(part: dict[str, Any]) -> None:
    scorer = rule_scorer(**part)
    row = {"answer": "72"}
    score_of(scorer, "first", row)  # Which loads what is needed.
    slow = {}
    for name, response in HOSTILE.items():
        began = time.process_time(), time.monotonic()
        score = score_of(scorer, response, row)
        # Of a machine that others use too, the smaller; JSON and mathematics are held by their own limit.
        seconds = min(time.process_time() - began[0], time.monotonic() - began[1])
        if seconds > BOUND_S or score.failures:
            slow[name] = (seconds, score.failures)
        assert 0 <= score.total <= 1
    assert slow == {}


def test_every_kind_is_among_them() -> None:
    assert {part["kind"] for part in PARTS} == {kind.model_fields["kind"].default for kind in get_args(RulePart)}
