"""Settings of environments: what they may be, and which of their texts name code of the user's."""

from typing import Any

import pytest
from pydantic import ValidationError

from plumbob.configs.base import IsFunction, Settings
from plumbob.configs.schema import marked_keys, marked_texts, with_marked_texts
from plumbob.configs.settings.programs.environments import EnvironmentSettings
from plumbob.configs.validation import complete, setting_errors


class Acting(Settings):
    environment: EnvironmentSettings | None = None


def errors(**given: Any) -> list[tuple[str, str]]:
    completed = complete(Acting, {"environment": {"source": "a.py:World", **given}})
    return [(error.key, error.text) for error in setting_errors(Acting, completed)]


def test_sources_and_parsers_of_the_users_are_walked_and_words_are_not() -> None:
    assert marked_keys(Acting, IsFunction) == ["environment.source", "environment.tool_calls"]
    for word in ("template", "none"):
        plain = Acting(environment=EnvironmentSettings(source="a.py:World", tool_calls=word))
        assert list(marked_texts(plain, IsFunction)) == [("environment.source", "a.py:World")]
        assert with_marked_texts(plain, IsFunction, str.upper).environment == EnvironmentSettings.model_construct(
            **{**plain.environment.model_dump(), "source": "A.PY:WORLD"}  # type: ignore[union-attr]
        )
    parsing = Acting(environment=EnvironmentSettings(source="a.b:World", tool_calls="a.py:calls"))
    assert list(marked_texts(parsing, IsFunction)) == [
        ("environment.source", "a.b:World"),
        ("environment.tool_calls", "a.py:calls"),
    ]


def test_what_may_be_given() -> None:
    given = {"arguments": {"size": 3, "names": ["a", None]}, "on_failure": -1.5, "variables": ["KEY"], "max_turns": 1}
    assert errors(**given) == []
    settings = EnvironmentSettings(source="a.py:World", **given)
    assert (settings.arguments["names"], settings.on_failure, settings.variables) == (["a", None], -1.5, ("KEY",))


@pytest.mark.parametrize(
    ("given", "key", "words"),
    [
        ({"source": "World"}, "source", "expected file.py:function or package.module:function, found the text 'World'"),
        ({"max_turns": 0}, "max_turns", "expected a number that is at least 1, found 0"),
        ({"on_failure": "score"}, "on_failure", "expected a number or 'stop', found the text 'score'"),
        ({"timeout_s": 0}, "timeout_s", "expected a number greater than 0, found 0"),
        ({"memory_gib": 0.1}, "memory_gib", "expected a number that is at least 0.125, found 0.1"),
        ({"tool_calls": "json"}, "tool_calls", "expected one of 'template' or 'none' or file.py:function or package"),
        ({"max_turn": 3}, "max_turn", "unknown key; did you mean environment.max_turns?"),
    ],
)
def test_what_may_not(given: dict[str, Any], key: str, words: str) -> None:
    ((found, text),) = errors(**given)
    assert found == f"environment.{key}" and text.startswith(words)


def test_arguments_are_plain_values() -> None:
    with pytest.raises(ValidationError):
        EnvironmentSettings(source="a.py:World", arguments={"f": print})  # type: ignore[dict-item]
