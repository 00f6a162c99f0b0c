"""Arithmetic with a calculator, by episodes made by hand."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from plumbob.configs.settings.data import ReadingSettings
from plumbob.configs.settings.programs.environments import EnvironmentSettings
from plumbob.data.reading.readers import read_prompts
from plumbob.data.texts.chat_text import chat_renderer
from plumbob.rollout.environments.environment_host import EnvironmentHost
from plumbob.rollout.environments.openings import openings_of
from plumbob.rollout.environments.shipped.calculator import Calculator, answer_in, calculated, rows
from tests.support.environments import replied, said
from tests.support.public_templates import public_tokenizer

SOURCE = "plumbob.rollout.environments.shipped.calculator:Calculator"
ROW = {"expression": "37 * 46"}


def call(**arguments: Any) -> dict[str, Any]:
    return {"id": "call00000", "type": "function", "function": {"name": "calculator", "arguments": arguments}}


def begun(**settings: Any) -> Calculator:
    found = Calculator(**settings)
    assert found.reset(ROW, 0) == [{"role": "user", "content": "What is 37 * 46?"}]
    return found


def test_a_call_its_result_and_the_answer() -> None:
    world = begun()
    result = {"role": "tool", "content": "1702", "tool_call_id": "call00000"}
    assert world.step({**said(""), "tool_calls": [call(expression="37 * 46")]}) == {"messages": [result]}
    assert world.step(said("37 * 46 is 1,702.")) == {"reward": 1.0, "done": True}


def test_a_call_in_plain_text_for_templates_without_tools() -> None:
    world = begun(role="user")
    assert world.step(said("calculate(37 * 46)")) == {"messages": [{"role": "user", "content": "1702"}]}
    assert world.step(said("1703")) == {"reward": 0.0, "done": True}


def test_wrong_calls_are_answered_and_end_nothing() -> None:
    world = begun(role="user")
    for made, told in (
        (call(), "error: the tool is calculator(expression)"),
        (call(expression=5), "error: the tool is calculator(expression)"),
        ({"id": "a", "function": {"name": "clock", "arguments": {}}}, "error: the tool is calculator(expression)"),
        (call(expression="37 *"), "error: this is no calculation"),
        (call(expression="1 / 0"), "error: division by zero"),
    ):
        assert world.step({**said(""), "tool_calls": [made]}) == {"messages": [{"role": "user", "content": told}]}
    assert world.step(said("I do not know.")) == {"reward": 0.0, "done": True}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 + 3 * 4", 14),
        ("(2 + 3) * -4", -20),
        ("1 / 3", Fraction(1, 3)),
        ("0.1 + 0.2", Fraction(3, 10)),
        ("7 // 2 + 7 % 4", 6),
        ("2 ** 10", 1024),
        ("2 ** -1", Fraction(1, 2)),
    ],
)
def test_values_are_exact(expression: str, value: Fraction) -> None:
    assert calculated(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        *("", "a", "f(1)", "1 if 1 else 2", "[1]", "True", "'1'", "1j", "1; 2", "__import__('os')", "1 < 2", "\0"),
        *("2 ** 65", "2 ** 0.5", "10 ** 30 * 10", "9 ** 64", "1e400", "(" * 150 + "1" + ")" * 150, "1" + "+1" * 200),
        *("9" * 100, "1 % 0", "0 ** -1", "~1", "1 << 2"),
    ],
)
def test_what_is_no_calculation_is_refused(expression: str) -> None:
    with pytest.raises(ValueError):
        calculated(expression)


def test_the_last_number_is_the_answer() -> None:
    assert [answer_in(text) for text in ("a 1 and -2.50", "1,702.", "1/3", "2 / 0 = 1/0", "none")] == [
        *(Fraction(-5, 2), 1702, Fraction(1, 3), None, None)
    ]


def test_rows_are_different_and_decided_by_the_seed() -> None:
    made = list(rows(200, 1))
    assert made == list(rows(200, 1)) != list(rows(200, 2))
    assert len({row["expression"] for row in made}) == 200
    for row in made:
        first, sign, second = row["expression"].split()
        assert sign in "*+-" and 100 <= int(first) <= 999 and 100 <= int(second) <= 999
        assert "prompt" not in row and row["tools"][0]["function"]["name"] == "calculator"
    with pytest.raises(ValueError, match="there are not 1000 different rows of 1 digits"):
        list(rows(1000, 0, 1))


def test_in_its_process() -> None:
    settings = EnvironmentSettings(source=SOURCE, arguments={"role": "user"})
    with openings_of(settings, 0) as opening:
        assert opening is not None
        assert opening(ROW) == [{"role": "user", "content": "What is 37 * 46?"}]
        assert opening({**ROW, "prompt": "37 * 46 ="}) is None


def test_its_rows_are_asked_in_a_users_turn_that_knows_the_tool(tmp_path: Path) -> None:
    """By Qwen's template; a row whose `prompt` is a text would stand as it is, without turns and tools."""
    (row,) = rows(1, 0)
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    render = chat_renderer(public_tokenizer("qwen3"))
    with openings_of(EnvironmentSettings(source=SOURCE), 0) as opening:
        (prompt,) = read_prompts(str(tmp_path / "rows.jsonl"), ReadingSettings(), render, True, opening).records
    assert prompt.text.endswith(f"<|im_start|>user\nWhat is {row['expression']}?<|im_end|>\n<|im_start|>assistant\n")
    assert '<tools>\n{"type": "function", "function": {"name": "calculator"' in prompt.text


def test_it_answers_in_its_process() -> None:
    settings = EnvironmentSettings(source=SOURCE, arguments={"role": "user"})
    host = EnvironmentHost(settings)
    episode = host.open(ROW, 0)
    assert replied(host, episode, "calculate(37 * 46)").messages == ({"role": "user", "content": "1702"},)
    assert replied(host, episode, "1702").reward == 1.0
