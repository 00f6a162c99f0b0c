"""Rules on a text alone, by hand."""

import time
from typing import Any

import pytest

from plumbob.core.errors import UserError
from tests.support.rule_values import rule_scorer, score_of, value_of


@pytest.mark.parametrize(
    ("response", "settings", "value"),
    [
        ("Tea and milk", {"texts": ["Tea", "milk"]}, 1),
        ("Tea alone", {"texts": ["Tea", "milk"]}, 0),
        ("Tea alone", {"texts": ["Tea", "milk"], "match": "any"}, 1),
        ("nothing", {"texts": ["Tea", "milk"], "match": "any"}, 0),
        ("tea", {"texts": ["Tea"]}, 0),
        ("tea", {"texts": ["Tea"], "case_sensitive": False}, 1),
        ("STRASSE", {"texts": ["straße"], "case_sensitive": False}, 1),
        ("instead", {"texts": ["tea"]}, 1),
        ("", {"texts": ["x"]}, 0),
    ],
)
def test_contains(response: str, settings: dict[str, Any], value: float) -> None:
    assert value_of("contains", response, **settings) == value


@pytest.mark.parametrize(
    ("response", "pattern", "value"),
    [
        ("call 555-1234 now", r"\d{3}-\d{4}", 1),
        ("call 55-1234 now", r"(?<!\d)\d{3}-\d{4}", 0),
        ("a\nb", "a.b", 0),
        ("ABC", "(?i)abc", 1),
        ("café", r"\p{Ll}{4}", 1),
        ("", "x", 0),
        ("", "^$", 1),
    ],
)
def test_regex(response: str, pattern: str, value: float) -> None:
    assert value_of("regex", response, pattern=pattern) == value


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("<think>two\nlines</think> 4", 1),
        ("  <think></think>4\n", 1),
        ("<think>never closed", 0),
        ("Well, <think>a</think> 4", 0),
        ("", 0),
    ],
)
def test_format_is_of_the_whole_response(response: str, value: float) -> None:
    assert value_of("format", response, pattern="<think>.*</think>.*") == value


@pytest.mark.parametrize("kind", ["regex", "format"])
def test_a_search_that_would_never_end_is_ended_and_counted(kind: str) -> None:
    began = time.monotonic()
    score = score_of(rule_scorer(kind, pattern=r"(a|aa)+\d", timeout_s=0.2), "a" * 100_000)
    assert time.monotonic() - began < 2
    assert (score.total, score.failures) == (0, {kind: "the search for '(a|aa)+\\\\d' took more than 0.2 s"})


def test_what_is_no_pattern_is_refused_by_the_parts_name() -> None:
    with pytest.raises(
        UserError, match=r"reward\.parts: tags: pattern='<think>\(' is no regular expression: missing \)"
    ):
        rule_scorer("format", pattern="<think>(", name="tags")


@pytest.mark.parametrize(
    ("response", "settings", "value"),
    [
        ("one two three", {"max": 3}, 1),
        ("one two three four", {"max": 3}, 0),
        ("one two three", {"min": 3, "max": 3}, 1),
        ("one two", {"min": 3}, 0),
        (" abc\n", {"unit": "characters", "min": 3, "max": 3}, 1),
        ("🙂é", {"unit": "characters", "max": 2}, 1),
        ("One. Two.", {"unit": "sentences", "max": 1}, 0),
        ("One.", {"unit": "sentences", "max": 1}, 1),
        ("", {"max": 3}, 1),
        ("", {"min": 1}, 0),
    ],
)
def test_length(response: str, settings: dict[str, Any], value: float) -> None:
    assert value_of("length", response, **settings) == value


TEXTS = {
    "en": "The weather is lovely today, and we are going to walk along the river before dinner.",
    "de": "Das Wetter ist heute schön, und wir gehen vor dem Abendessen am Fluss spazieren.",
    "fr": "Il fait beau aujourd'hui et nous allons nous promener le long de la rivière avant le dîner.",
    "zh": "今天天气很好，我们晚饭前要去河边散步。",
    "ru": "Сегодня прекрасная погода, и перед ужином мы пойдём гулять вдоль реки.",
}


@pytest.mark.parametrize("spoken", TEXTS)
def test_language(spoken: str) -> None:
    for language in TEXTS:
        assert value_of("language", TEXTS[spoken], language=language) == (language == spoken)


@pytest.mark.parametrize("response", ["", "  ", "!!! ...", "🙂"])
def test_a_text_without_letters_is_in_no_language(response: str) -> None:
    assert [value_of("language", response, language=language) for language in TEXTS] == [0] * len(TEXTS)


def test_a_language_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(
        UserError, match=r"reward\.parts: language: language=xx is not one .* told apart: .*, en, .*, zh"
    ):
        rule_scorer("language", language="xx")


def test_what_follows_a_text_is_read_alone() -> None:
    given: dict[str, Any] = {"texts": ["4"], "after": "</think>"}
    assert value_of("contains", "<think>4</think> five", **given) == 0
    assert value_of("contains", "<think>5</think> four, 4", **given) == 1
    assert value_of("contains", "4 </think> 5 </think> 4", **given) == 1
    # Without it there is nothing to be read, not even by a rule that an empty text would keep.
    assert value_of("contains", "4", **given) == 0
    assert value_of("length", "four", max=10, after="</think>") == 0
