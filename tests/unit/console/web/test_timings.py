"""How long the pages' first answers take: a journal of 100,000 responses, and 200 runs."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from plumbob.console.web.run_answers import RunAnswers
from plumbob.console.web.run_files.run_content import strict_json
from tests.support.finished_run import finished_run
from tests.support.served_runs import long_journal

FIRST_VIEW_S = 1.0
TOKEN_VIEW_S = 0.3
NUM_ROWS = 100_000
LOADED = 3.0
"""How much slower a machine may be that does other things beside."""


def least_s(answer: Callable[[], object], num_tries: int = 3) -> float:
    """The least of some tries: of the others something else took the time."""
    seconds = []
    for _ in range(num_tries):
        began = time.perf_counter()
        answer()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    long_journal(finished_run(root / "long", "grpo", {}), NUM_ROWS)
    return root


def test_a_long_journal_is_there_at_once(root: Path) -> None:
    path = {"run": "long"}
    first = least_s(lambda: strict_json(RunAnswers(root).rollouts(path, {})))
    answers = RunAnswers(root)
    assert answers.rollouts(path, {})["total"] == 391 * 256  # The first whole number of steps.
    by_score = least_s(lambda: strict_json(answers.rollouts(path, {"sort": "score"})))
    steps = iter(range(300, 310))
    token = least_s(lambda: strict_json(answers.row(path | {"step": str(next(steps)), "row": "17"}, {})))
    print(f"first view {first:.3f} s, by score {by_score:.3f} s, token view {token:.3f} s")
    assert first < FIRST_VIEW_S * LOADED and by_score < FIRST_VIEW_S * LOADED
    assert token < TOKEN_VIEW_S * LOADED


def test_two_hundred_runs_are_there_at_once(tmp_path: Path) -> None:
    for number in range(200):
        finished_run(tmp_path / f"run-{number}", "sft", {})
    first = least_s(lambda: strict_json(RunAnswers(tmp_path).runs({}, {})))
    answers = RunAnswers(tmp_path)
    answers.runs({}, {})
    again = least_s(lambda: strict_json(answers.runs({}, {})))
    print(f"200 runs: {first:.3f} s, again {again:.3f} s")
    assert first < FIRST_VIEW_S * LOADED and again < FIRST_VIEW_S
