"""Verifiable instructions: of each, texts that keep it and texts that do not."""

from typing import Any

import pytest

from plumbob.configs.settings.rules.reward_rules import InstructionsRule
from plumbob.data.records import RowError
from plumbob.reward.open_part import part_opening
from tests.support.rule_values import value_of

CASES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    (
        {"kind": "sentences", "max": 1},
        ["I like tea.", "I like tea", "Dr. Lee has 3.5 cups"],
        ["I like tea. And milk.", "- tea\n- milk", "Tea.\n```\nmilk\n```", "tea! milk!", "喝茶。喝水。"],
    ),
    ({"kind": "words", "min": 2, "max": 3}, ["two words", "just three words"], ["one", "here are four words", "- - -"]),
    ({"kind": "paragraphs", "min": 2, "max": 2}, ["a\n\nb", "a\n\n```\nx\n\ny\n```"], ["a\nb", "a\n\nb\n\nc"]),
    (
        {"kind": "items", "min": 3},
        ["- a\n- b\n- c", "Take:\n1. a\n2. b\n3. c"],
        ["- a\n- b", "a, b, c", "```\n- a\n- b\n- c\n```"],
    ),
    ({"kind": "lowercase"}, ["all small, 3 of them", "é"], ["One", "tITLE", "ǅ a", "123", "中文"]),
    ({"kind": "uppercase"}, ["ALL LARGE 3", "É"], ["Mostly", "STRAßE", "123"]),
    (
        {"kind": "without-letter", "letter": "e"},
        ["A big dog.", "Ωmega".replace("e", "i"), "1 + 1"],
        ["the", "E", "café", "ｅ", "Ê"],
    ),
    ({"kind": "without-letter", "letter": "É"}, ["a dog"], ["the"]),
    (
        {"kind": "mention", "text": "green tea"},
        ["I drink Green  Tea.", "green\ntea!", "(GREEN TEA)"],
        ["green", "evergreen tea", "green teams", "greentea"],
    ),
    ({"kind": "mention", "text": "tea", "min": 2}, ["tea, and tea"], ["tea", "tea team"]),
    ({"kind": "mention", "text": "北京"}, ["我住在北京市"], ["我住在上海"]),
    ({"kind": "mention", "text": "C++"}, ["I write C++.", "c++"], ["C", "C+"]),
    (
        {"kind": "avoid", "texts": ["sorry", "as an AI"]},
        ["Here you are", "sorrysome"],
        ["Sorry, no", "As an  ai I cannot"],
    ),
    ({"kind": "starts-with", "text": "Dear"}, ["dear Ann", "  DEAR Ann"], ["Oh dear", "De ar"]),
    ({"kind": "ends-with", "text": "Bye."}, ["See you. bye.", "Bye.\n"], ["Bye", "Bye. Or not"]),
    (
        {"kind": "quoted"},
        ['"All of it."', "“so”", "«oui»", "「はい」", ' "x" '],
        ['"open', 'He said "x"', '"', '""', "'x'"],
    ),
    ({"kind": "no-commas"}, ["a b c", "1.000"], ["a, b", "1,000", "我，你", "أ، ب"]),
    (
        {"kind": "json-only"},
        ['{"a": 1}', ' [1, "x"]\n', '```json\n{"a": [1]}\n```', '```\n["x"]\n```'],
        ['Here: {"a": 1}', '{"a": 1} done', "{a: 1}", '{"a": NaN}', '"text"', "5", "[1", '```json\n{"a": 1}\n``` done'],
    ),
]


@pytest.mark.parametrize(("instruction", "kept", "broken"), CASES)
def test_each_instruction(instruction: dict[str, Any], kept: list[str], broken: list[str]) -> None:
    assert [text for text in kept if value_of("instructions", text, instructions=[instruction]) != 1] == []
    assert [text for text in broken if value_of("instructions", text, instructions=[instruction]) != 0] == []


@pytest.mark.parametrize("instruction", [case[0] for case in CASES])
@pytest.mark.parametrize("text", ["", " \n", "...", "🙂"])
def test_nothing_keeps_nothing(instruction: dict[str, Any], text: str) -> None:
    assert value_of("instructions", text, instructions=[instruction]) == 0


THREE = [{"kind": "lowercase"}, {"kind": "no-commas"}, {"kind": "words", "max": 2}]


@pytest.mark.parametrize(
    ("text", "share", "all_of_them"), [("two words", 1, 1), ("three small words", 2 / 3, 0), ("Oh, many Words", 0, 0)]
)
def test_the_share_kept_or_all_or_nothing(text: str, share: float, all_of_them: float) -> None:
    assert value_of("instructions", text, instructions=THREE) == pytest.approx(share)
    assert value_of("instructions", text, instructions=THREE, all_or_nothing=True) == all_of_them


def test_those_of_the_row_are_added_to_those_of_the_settings() -> None:
    row = {"checks": [{"kind": "mention", "text": "tea"}]}
    given = {"instructions": [{"kind": "lowercase"}], "column": "checks"}
    assert value_of("instructions", "green tea", row, **given) == 1
    assert value_of("instructions", "Green tea", row, **given) == 0.5
    assert value_of("instructions", "Green tea", row, column="checks") == 1
    # As CSV and as Parquet give them.
    assert value_of("instructions", "tea", {"checks": '[{"kind": "mention", "text": "tea"}]'}, column="checks") == 1
    of_parquet = [{"kind": "mention", "text": "tea", "max": None}, {"kind": "words", "text": None, "max": 1}]
    assert value_of("instructions", "tea", {"checks": of_parquet}, column="checks") == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([{"kind": "word", "max": 3}], r"^the column 'checks': instruction 0: .*'word'"),
        ([{"kind": "words", "max": 3}, {"kind": "words"}], "instruction 1.words: .*without bounds"),
        ([{"kind": "mention"}], "instruction 0.mention.text: Field required"),
        ([{"kind": "words", "max": 3, "more": 1}], "instruction 0.words.more: "),
        ([], "the column 'checks' has no instruction, and the settings have none"),
        ("in one sentence", "the column 'checks' has no list of instructions such as "),
        (3, "has no list of instructions"),
        (["words"], "has no list of instructions"),
        ("[" * 100_000, "has no list of instructions"),
    ],
)
def test_a_row_with_malformed_instructions_is_refused(given: Any, message: str) -> None:
    opening = part_opening(InstructionsRule(column="checks"), None)
    with pytest.raises(RowError, match=message):
        opening.check_row({"checks": given})
