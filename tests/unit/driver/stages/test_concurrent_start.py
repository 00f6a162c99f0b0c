"""Groups of workers that are started concurrently, one of which cannot be."""

from threading import Event

import pytest

import plumbob.driver.stages.concurrent_start
from plumbob.cluster.failures import LearnersLost
from plumbob.core.errors import UserError
from plumbob.driver.stages.concurrent_start import run_concurrently

BOUND_S = 60.0


def fails(error: Exception) -> None:
    raise error


def test_results_come_in_the_order_of_the_tasks() -> None:
    second_is_done = Event()

    def first() -> str:
        assert second_is_done.wait(BOUND_S)
        return "first"

    def second() -> str:
        second_is_done.set()
        return "second"

    assert run_concurrently(pytest.fail, first, second) == ["first", "second"]


def test_a_user_error_waits_no_longer_than_its_bound_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plumbob.driver.stages.concurrent_start, "ENDING_S", 0.1)
    may_end, has_ended = Event(), Event()
    said: list[str] = []

    def other() -> None:
        may_end.wait(BOUND_S)
        has_ended.set()

    with pytest.raises(UserError, match="no such model"):
        run_concurrently(said.append, other, lambda: fails(UserError("no such model")))
    assert not has_ended.is_set()
    assert said == ["no such model; waiting for up to 0.1 s for the workers that are being started beside"]
    may_end.set()


def test_lost_learners_wait_for_the_others_with_which_the_stage_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plumbob.driver.stages.concurrent_start, "ENDING_S", 0.0)
    learners_are_lost, others_are_ready = Event(), Event()

    wait_is_said = Event()
    said: list[str] = []

    def say(message: str) -> None:
        said.append(message)
        wait_is_said.set()

    def others() -> None:
        assert learners_are_lost.wait(BOUND_S) and wait_is_said.wait(BOUND_S)
        others_are_ready.set()

    def learners() -> None:
        learners_are_lost.set()
        raise LearnersLost("rank 0 died")

    with pytest.raises(LearnersLost):
        run_concurrently(say, others, learners)
    assert others_are_ready.is_set()
    assert said == ["rank 0 died; waiting for the workers that are being started beside"]
