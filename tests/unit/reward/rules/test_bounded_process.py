"""JSON and mathematics in a process of their own, which hostile texts end and no more."""

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from plumbob.configs.settings.rules.reward_rules import JsonRule, MathRule
from plumbob.core.errors import RunFailed, UserError
from plumbob.reward.rules.bounded_process import BoundedProcess
from plumbob.reward.rules.json_text import json_value
from plumbob.reward.rules.right_answers.answers import math_value
from plumbob.reward.rules.rule import NotScored
from plumbob.reward.scorer import Scorer
from tests.support.rule_values import rule_scorer, score_of

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def person() -> Scorer:
    return rule_scorer("json", json_schema=PERSON, timeout_s=2)


@pytest.fixture(scope="module")
def mathematics() -> Scorer:
    return rule_scorer("math", timeout_s=2)


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ('{"name": "Ann", "age": 3}', 1),
        (' {"name": "Änn"}\n', 1),
        ('```json\n{"name": "Ann"}\n```', 1),
        ('{"name": ""}', 0),
        ('{"age": 3}', 0),
        ('{"name": "Ann", "age": -1}', 0),
        ('{"name": "Ann", "more": 1}', 0),
        ('{"name": "Ann"', 0),
        ('Sure: {"name": "Ann"}', 0),
        ('{"name": "Ann", "age": NaN}', 0),
        ("[]", 0),
        ("", 0),
        ("[" * 100_000, 0),
        ('{"name": "' + "a" * 100_000 + '"}', 1),
        ('{"name": "\ud800"}', 1),
    ],
)
def test_json_by_a_schema(response: str, value: float, person: Scorer) -> None:
    score = score_of(person, response)
    assert (score.total, score.failures) == (value, {})


def test_json_without_a_schema() -> None:
    scorer = rule_scorer("json")
    assert [score_of(scorer, text).total for text in ("5", '"x"', "null", "x", "{}")] == [1, 1, 1, 0, 1]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "objekt"}, r"^reward\.parts: form: json_schema is no JSON Schema: at \$\.type: 'objekt'"),
        ({"$ref": "https://example.com/a.json"}, "refers to 'https://example.com/a.json', which does not stand in it"),
        ({"properties": {"a": {"$ref": "#/$defs/gone"}}}, "refers to '#/\\$defs/gone', which does not stand in it"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rule_scorer("json", json_schema=schema, name="form")


@pytest.mark.parametrize(
    ("schema", "response", "reason"),
    [
        ({"pattern": "^(a|aa)+$"}, '"' + "a" * 200 + '!"', "it took more than 0.3 CPU seconds"),
        (
            {"uniqueItems": True},
            json.dumps([{"a": number} for number in range(10_000)]),
            "it took more than 0.3 CPU seconds",
        ),
        (
            {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
            "1",
            "the schema: it is nested too deeply, or names itself",
        ),
    ],
)
def test_a_check_without_end_is_ended_counted_and_the_next_is_scored(
    schema: dict[str, Any], response: str, reason: str
) -> None:
    scorer = rule_scorer("json", json_schema=schema, timeout_s=0.3, name="form")
    for _ in range(2):
        score = score_of(scorer, response)
        assert (score.total, score.failures) == (0, {"form": reason})
    assert score_of(scorer, "no JSON").failures == {}


@pytest.mark.parametrize(
    ("response", "answer", "value"),
    [
        ("The result is $\\frac{1}{2}$.", "0.5", 1),
        ("\\boxed{\\frac{2}{4}}", "\\frac{1}{2}", 1),
        ("I get $x^2 + 2x + 1$", "(x+1)^2", 1),
        ("so $2\\sqrt{2}$", "\\sqrt{8}", 1),
        ("$\\{3, 1\\}$", "\\{1, 3\\}", 1),
        ("It is 1,000", "#### 1000", 1),
        ("answer: 3/4", 0.75, 1),
        ("$(1, 2)$", "(1,2)", 1),
        ("first $5$, then \\boxed{6}", "6", 1),
        ("$\\frac{1}{3}$", "0.5", 0),
        ("$x^2 + 1$", "(x+1)^2", 0),
        ("$(2, 1)$", "(1,2)", 0),
        ("first \\boxed{6}, then \\boxed{5}", "6", 0),
        ("no idea", "6", 0),
        ("", "6", 0),
        ("$\\frac{1}{$", "6", 0),
        ("🙂 $é$", "6", 0),
    ],
)
def test_mathematics(response: str, answer: Any, value: float, mathematics: Scorer) -> None:
    score = score_of(mathematics, response, {"answer": answer})
    assert (score.total, score.failures) == (value, {})


@pytest.mark.parametrize("response", ["$9^{9^{9^{9}}}$", "$10^{10^{10}} + 1$"])
def test_a_formula_without_end_is_ended_and_the_next_is_scored(response: str, mathematics: Scorer) -> None:
    score = score_of(mathematics, response, {"answer": "6"})
    assert score.total == 0
    assert score_of(mathematics, "$6$", {"answer": "6"}).total == 1


def test_an_answer_that_is_no_formula_is_counted(mathematics: Scorer) -> None:
    score = score_of(mathematics, "6", {"answer": "$"})
    assert (score.total, list(score.failures)) == (0, ["math"])


def test_threads_can_ask_and_the_process_has_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    process = BoundedProcess(JsonRule(), json_value)
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.append(process.value("{}", None)))
    thread.start()
    thread.join()
    assert found == [1.0]
    assert b"secret" not in Path(f"/proc/{_pid(process)}/environ").read_bytes()


def test_one_that_was_killed_is_counted_and_started_again() -> None:
    process = BoundedProcess(MathRule(), math_value)
    assert process.value("$6$", "6") == 1
    first = _pid(process)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(NotScored, match="its process ended with status -9"):
        process.value("$6$", "6")
    assert process.value("$6$", "6") == 1 and _pid(process) != first


def test_it_ends_with_its_scorer() -> None:
    process = BoundedProcess(JsonRule(), json_value)
    process.value("{}", None)
    pid = _pid(process)
    del process
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_one_that_does_not_start_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(RunFailed, match="the process of the reward's part json did not start: it ended with status 1"):
        BoundedProcess(JsonRule(), json_value).value("{}", None)


def _pid(process: BoundedProcess) -> int:
    assert process._process is not None
    return process._process.pid
