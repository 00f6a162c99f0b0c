"""What judges have answered, kept for other scorers and later ones, and how two scorers take turns."""

import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from plumbob.cluster.calls import wait_until
from plumbob.core.activities import activities
from plumbob.reward.open_scorer import open_scorer
from plumbob.reward.services.judge_answers import JudgeAnswers, judge_costs, question_digest
from tests.support.judging import judging
from tests.support.score_requests import score_requests


def test_answers_outlive_their_scorer_and_are_shared(tmp_path: Path) -> None:
    questions: list[str] = []

    def verdict(question: str) -> int:
        questions.append(question)
        return 10

    with judging(verdict) as part:
        one, other = (open_scorer(part, "cpu", tmp_path) for _ in range(2))
        one.score(score_requests([("q", "x")]))
        # Beside the first, and after both.
        shared = other.score(score_requests([("q", "x"), ("q", "y")]))
        later = open_scorer(part, "cpu", tmp_path).score(score_requests([("q", "y"), ("q", "x")]))
        assert len(questions) == 2
        assert [score.parts["prompt_tokens"] for score in (*shared, *later)] == [0.0, 30.0, 0.0, 0.0]
        # Another rubric, scale or model is another question.
        for change in ({"rubric": "Is it kind?"}, {"scale": (1, 11)}, {"model": "n"}):
            open_scorer(part.model_copy(update=change), "cpu", tmp_path).score(score_requests([("q", "x")]))
    assert len(questions) == 5
    cost = {"answers": 5, "prompt_tokens": 5 * 30, "completion_tokens": 5 * 5}
    assert judge_costs(tmp_path) == {"llm-judge": cost}


def test_two_scorers_that_ask_at_the_same_moment_ask_once(tmp_path: Path) -> None:
    questions: list[str] = []
    second = threading.Event()

    def verdict(question: str) -> int:
        questions.append(question)
        if len(questions) > 1:
            second.set()
        second.wait(1.0)  # Whoever would ask too does so meanwhile.
        return 10

    with judging(verdict) as part, ThreadPoolExecutor(2) as threads:
        scorers = [open_scorer(part, "cpu", tmp_path) for _ in range(2)]
        found = [score for (score,) in threads.map(lambda one: one.score(score_requests([("q", "x")])), scorers)]
    assert len(questions) == 1 and [score.total for score in found] == [1.0, 1.0]
    assert sorted(score.parts["prompt_tokens"] for score in found) == [0.0, 30.0]
    assert judge_costs(tmp_path)["llm-judge"]["answers"] == 1


def test_a_scorer_waits_for_no_question_but_its_own(tmp_path: Path) -> None:
    arrived = threading.Barrier(2)

    def verdict(question: str) -> int:
        arrived.wait(60.0)  # Broken, and the answer is none, where the other question is not asked meanwhile.
        return 10

    with judging(verdict) as part, ThreadPoolExecutor(2) as threads:
        scorers = [open_scorer(part, "cpu", tmp_path) for _ in range(2)]
        asked = [score_requests([("q", response)]) for response in "xy"]
        found = list(threads.map(lambda one, requests: one.score(requests), scorers, asked))
    assert [score.total for (score,) in found] == [1.0, 1.0]


def hold_turn(folder: Path, question: str) -> None:
    """In a process of its own: asks, and is never answered."""
    with JudgeAnswers(folder, "judge").turn(question, 600.0):
        (folder / "asking").touch()
        time.sleep(600)


def test_what_a_scorer_asked_that_was_killed_is_asked_by_the_next(tmp_path: Path) -> None:
    question = question_digest("q")
    process = multiprocessing.get_context("spawn").Process(target=hold_turn, args=(tmp_path, question))
    process.start()
    try:
        assert wait_until((tmp_path / "asking").exists, 120.0)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(lambda: JudgeAnswers(tmp_path, "judge").turn(question, 600.0).__enter__())
            with pytest.raises(TimeoutError):
                waiting.result(1.0)
            process.kill()
            assert waiting.result(60.0) is None
    finally:
        process.kill()
        process.join()


def test_a_scorer_whose_question_takes_too_long_is_not_waited_for(tmp_path: Path) -> None:
    first, release, asked = threading.Event(), threading.Event(), count()

    def verdict(question: str) -> int:
        if next(asked) == 0:
            first.set()
            assert release.wait(60.0)
            return 1
        return 10

    with judging(verdict) as part, ThreadPoolExecutor(2) as threads:
        slow, brief = (
            open_scorer(part.model_copy(update={"timeout_s": timeout_s}), "cpu", tmp_path) for timeout_s in (60.0, 2.0)
        )
        found = [threads.submit(slow.score, score_requests([("q", "x")]))]
        try:
            assert first.wait(60.0)
            found.append(threads.submit(brief.score, score_requests([("q", "x")])))
            waits = "llm-judge: waiting for another scorer that asks the same"
            assert wait_until(lambda: waits in [one.doing for one in activities.now()], 60.0, poll_s=0.01)
            # 2 s of the one try: then it asks too, and is answered while the other still is not.
            assert [score.total for score in found[1].result(60.0)] == [1.0]
            assert waits not in [one.doing for one in activities.now()] and not found[0].done()
        finally:
            release.set()
        assert [score.total for score in found[0].result(60.0)] == [0.0]
    assert judge_costs(tmp_path)["llm-judge"]["answers"] == 2


def test_a_line_whose_writer_was_killed_is_asked_again(tmp_path: Path) -> None:
    with judging(lambda question: 10) as part:
        open_scorer(part, "cpu", tmp_path).score(score_requests([("q", "x")]))
        (file,) = tmp_path.glob("*.jsonl")
        file.write_bytes(file.read_bytes()[:-5])
        (found,) = open_scorer(part, "cpu", tmp_path).score(score_requests([("q", "x")]))
    assert found.parts["prompt_tokens"] == 30.0 and judge_costs(tmp_path)["llm-judge"]["answers"] == 1
