"""A user's function as a reward, in its real process: each form that it may have, each way in which it may fail."""

import datetime
import time
from pathlib import Path

import pytest

from plumbob.core.errors import RunFailed, UserError
from plumbob.reward.programs.function_scorer import FunctionScorer
from plumbob.reward.scorer import Score, ScoreRequest
from tests.support.score_functions import function_part, write_function

# len(prompt) + 10 len(response) + 100 row["n"]
FORMS = {
    "plain": ("def score(prompt, response, row): return len(prompt) + 10 * len(response) + 100 * row['n']", {}),
    "awaited": (
        "async def score(prompt, response, row): return len(prompt) + 10 * len(response) + 100 * row['n']",
        {},
    ),
    "batched": (
        "def score(prompts, responses, rows):\n"
        "    return [len(p) + 10 * len(r) + 100 * w['n'] for p, r, w in zip(prompts, responses, rows)]",
        {"batched": True, "batch_size": 2},
    ),
    "batched and awaited": (
        "async def score(prompts, responses, rows):\n"
        "    return tuple(len(p) + 10 * len(r) + 100 * w['n'] for p, r, w in zip(prompts, responses, rows))",
        {"batched": True},
    ),
    "an object": (
        "class Scorer:\n"
        "    async def __call__(self, prompt, response, row):\n"
        "        return len(prompt) + 10 * len(response) + 100 * row['n']\n"
        "score = Scorer()",
        {},
    ),
}
REQUESTS = [ScoreRequest("p" * 3, "r" * size, {"n": size}) for size in (1, 0, 2)]


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_its_numbers(form: str, tmp_path: Path) -> None:
    body, settings = FORMS[form]
    scorer = FunctionScorer(function_part(tmp_path, body, **settings))
    assert scorer.score(REQUESTS) == [Score(3 + 10 + 100, {}), Score(3.0, {}), Score(3 + 20 + 200, {})]
    assert scorer.score([]) == []


@pytest.mark.parametrize("arguments", ["prompt, response", "prompt, response, strict=True"])
def test_one_that_takes_no_row(arguments: str, tmp_path: Path) -> None:
    """A third argument of another name has its own default."""
    body = f"def score({arguments}): assert locals().get('strict', True) is True; return float(response)"
    assert FunctionScorer(function_part(tmp_path, body)).score([ScoreRequest("q", "2.5", {"n": 1})]) == [Score(2.5, {})]


def test_numbers_of_other_types_and_texts_of_all_kinds(tmp_path: Path) -> None:
    body = """
        import decimal, fractions, numpy
        GIVEN = {"int": 2, "bool": True, "fraction": fractions.Fraction(1, 4), "numpy": numpy.float32(0.5)}
        def score(prompt, response, row):
            assert prompt == "\\ud800 \\u2028 \\x00 é" and row == {"day": "2026-11-30", "nested": [{"a": None}]}
            return GIVEN[response]
        """
    row = {"day": datetime.date(2026, 11, 30), "nested": [{"a": None}]}
    asked = [ScoreRequest("\ud800 \u2028 \x00 é", name, row) for name in ("int", "bool", "fraction", "numpy")]
    found = FunctionScorer(function_part(tmp_path, body)).score(asked)
    assert [score.total for score in found] == [2.0, 1.0, 0.25, 0.5]


def test_calls_are_awaited_together(tmp_path: Path) -> None:
    body = """
        import asyncio
        async def score(prompt, response):
            await asyncio.sleep(0.5)
            return float(response)
        """
    scorer = FunctionScorer(function_part(tmp_path, body, batch_size=8))
    began = time.monotonic()
    found = scorer.score([ScoreRequest("q", str(number)) for number in range(16)])
    assert [score.total for score in found] == [float(number) for number in range(16)]
    assert 1.0 <= time.monotonic() - began < 4.0  # Two batches of 8, not 16 calls of half a second.


# ------------------------------------------------------------------------------------------------------------ failures

FAILING = """
    import asyncio, os, signal, sys, time
    def score(prompt, response):
        if response == "good":
            return 1.0
        return eval(response)
    """
FAILURES = {
    "1 / 0": "ZeroDivisionError: division by zero",
    "sys.exit(3)": "SystemExit: 3",
    "None": "no value: it gave None",
    "'0.5'": "wrong type: it gave a str, and a score is a float",
    "[1.0]": "wrong type: it gave a list, and a score is a float",
    "float('nan')": "not finite: it gave nan",
    "-float('inf')": "not finite: it gave -inf",
    "10 ** 400": "OverflowError: int too large to convert to float",
    "time.sleep(60)": "time-out: it took more than 1 s",
    "os._exit(3)": "its process ended: with status 3",
    "os.kill(os.getpid(), signal.SIGSEGV)": "its process ended: by SIGSEGV",
    "len(bytearray(2 ** 31))": "MemoryError",
}


@pytest.mark.parametrize("response", FAILURES)
def test_a_failure_is_worth_what_the_user_says_and_is_told(response: str, tmp_path: Path) -> None:
    """Those beside it keep theirs, and the process works again."""
    part = function_part(tmp_path, FAILING, timeout_s=1, memory_gib=0.5, on_failure=-2.0)
    before, failed, after = FunctionScorer(part).score([ScoreRequest("q", one) for one in ("good", response, "good")])
    assert before == after == Score(1.0, {})
    assert failed == Score(-2.0, {}, {"function": FAILURES[response]})


def test_closed_pipes_are_a_process_that_ended(tmp_path: Path) -> None:
    body = "import os\ndef score(prompt, response): os.closerange(3, 64); return 1.0"
    (found,) = FunctionScorer(function_part(tmp_path, body, timeout_s=2, on_failure=0.5)).score(
        [ScoreRequest("q", "r")]
    )
    assert found.total == 0.5 and found.failures["function"].startswith("its process ended")


@pytest.mark.parametrize("is_async", [False, True])
def test_of_a_batch_one_is_none(is_async: bool, tmp_path: Path) -> None:
    body = f"{'async ' * is_async}def score(prompts, responses, rows): return [1.0, None, float('nan')]"
    found = FunctionScorer(function_part(tmp_path, body, batched=True, on_failure=0.0)).score(REQUESTS)
    assert [score.total for score in found] == [1.0, 0.0, 0.0]
    assert [score.failures.get("function") for score in found] == [
        None,
        "no value: it gave None",
        "not finite: it gave nan",
    ]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return [1.0]", "wrong number: it gave 1 values for 3 responses"),
        ("return 1.0", "TypeError: 'float' object is not iterable"),
        ("raise KeyError('a')", "KeyError: 'a'"),
        ("time.sleep(60)", "time-out: it took more than 1 s"),
    ],
)
def test_a_batch_that_fails_fails_as_a_whole(body: str, reason: str, tmp_path: Path) -> None:
    content = f"import time\ndef score(prompts, responses, rows): {body}"
    part = function_part(tmp_path, content, batched=True, timeout_s=1, on_failure=0.25)
    assert FunctionScorer(part).score(REQUESTS) == [Score(0.25, {}, {"function": reason})] * 3


def test_awaited_calls_fail_one_by_one(tmp_path: Path) -> None:
    body = """
        import asyncio
        async def score(prompt, response):
            if response == "own":
                raise TimeoutError("of its own")
            await asyncio.sleep(float(response))
            return 1.0
        """
    part = function_part(tmp_path, body, timeout_s=1, on_failure=0.0)
    found = FunctionScorer(part).score([ScoreRequest("q", one) for one in ("0", "60", "own", "x")])
    assert found[0] == Score(1.0, {})
    assert [score.failures["function"] for score in found[1:]] == [
        "time-out: it took more than 1 s",
        "TimeoutError: of its own",
        "ValueError: could not convert string to float: 'x'",
    ]


def test_one_that_blocks_its_loop_is_ended_and_those_that_answered_keep_theirs(tmp_path: Path) -> None:
    body = """
        import time
        async def score(prompt, response):
            if response == "blocks":
                time.sleep(60)
            return 1.0
        """
    part = function_part(tmp_path, body, timeout_s=1, on_failure=0.0)
    began = time.monotonic()
    found = FunctionScorer(part).score([ScoreRequest("q", one) for one in ("a", "blocks", "b")])
    assert [score.total for score in found][:2] == [1.0, 0.0] and time.monotonic() - began < 20
    assert found[1].failures["function"] == "time-out: it took more than 1 s"


def test_by_default_a_failure_ends_the_run_with_the_users_own_lines(tmp_path: Path) -> None:
    body = """
        def inner(response):
            return {}[response]

        def score(prompt, response):
            return inner(response)
        """
    with pytest.raises(RunFailed) as failed:
        FunctionScorer(function_part(tmp_path, body)).score([ScoreRequest("what?", "door")])
    said = str(failed.value)
    assert said.startswith(
        f"the reward function {tmp_path}/my_reward.py:score failed on the response 'door' to ...'what?': KeyError: "
    )
    assert f'  File "{tmp_path}/my_reward.py", line 3, in inner' in said and "function_program" not in said
    assert "KeyError: 'door'\non_failure=NUMBER" in said


def test_a_source_that_has_changed_is_not_taken_in_the_middle_of_a_run(tmp_path: Path) -> None:
    scorer = FunctionScorer(function_part(tmp_path, FAILING, timeout_s=1, on_failure=0.0))
    write_function(tmp_path, "def score(prompt, response): return 9.0")
    assert scorer.score([ScoreRequest("q", "good")]) == [Score(1.0, {})]
    with pytest.raises(UserError, match="its source has changed since the run began"):
        scorer.score([ScoreRequest("q", "os._exit(0)")])
