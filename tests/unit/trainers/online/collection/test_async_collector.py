"""Sampling beside learning in a world of small fakes: how far ahead, and how it fails."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from plumbob.core.errors import StaleRollouts
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.trainers.learner.checkpoint import Checkpoints
from plumbob.trainers.learner.learner_protocol import UpdateResult
from plumbob.trainers.online.collection import async_collector
from plumbob.trainers.online.online_input import OnlineInput
from plumbob.trainers.online.online_loop import OnlineState, OnlineWorkers, run_online_asynchronous
from tests.support.online_world import PROMPTS, DriverDeathError, FakeOnlineWorld, play, settings

PATIENCE_S = 60.0


@pytest.mark.parametrize(
    ("max_staleness", "versions"), [(0, [0, 1, 2, 3, 4, 5]), (1, [0, 0, 1, 2, 3, 4]), (9, [0, 0, 0, 0, 0, 0])]
)
def test_how_far_ahead(tmp_path: Path, max_staleness: int, versions: list[int]) -> None:
    # Learning waits until sampling is as far ahead as it may be, and the last step asks for none after it.
    world, state = play(settings(max_staleness=max_staleness), tmp_path, loop=run_online_asynchronous)
    assert world.versions_learnt == versions
    assert state.step == 6 and world.version == 6
    assert len(world.requests) == 12
    num_asked = min(max_staleness + 1, 6)
    assert world.diary[: 2 * num_asked + 2] == ["publish 0", *["sample with 0", "score"] * num_asked, "learn"]


def run_in(world: Any, folder: Path, max_staleness: int) -> None:
    run = settings(max_staleness=max_staleness)
    state = OnlineState(run, OnlineInput(PROMPTS, 0, ()))
    actors = OnlineWorkers(world, world, world)
    run_online_asynchronous(run, 0, state, actors, Checkpoints(folder, 2), world)


class Deaf(FakeOnlineWorld):
    """Its samplers stay at version 0, whatever they are given."""

    def load(self, first: Any) -> None:
        super().load(first)
        self.version = 0


def test_a_token_that_is_too_old_is_not_learnt_from(tmp_path: Path) -> None:
    world = Deaf(None, 6)
    with pytest.raises(StaleRollouts, match=r"version 0, but the learner is at version 2 .*max_staleness=1"):
        run_in(world, tmp_path, 1)
    assert world.diary.count("learn") == 2


class Failing(FakeOnlineWorld):
    """Its samplers fail at the second step, while the first is learnt from."""

    def __init__(self) -> None:
        super().__init__(None, 6)
        self.has_failed = threading.Event()

    def sample(self, requests: Sequence[SampleRequest]) -> list[Rollout]:
        if requests[0].group_id.startswith("1-"):
            self.has_failed.set()
            raise DriverDeathError
        return super().sample(requests)

    def update(self, batch: Any, plan: Any) -> UpdateResult:
        assert self.has_failed.wait(PATIENCE_S)
        return super().update(batch, plan)


def test_what_sampling_raises_ends_the_run_after_the_step_that_is_learnt_from(tmp_path: Path) -> None:
    world = Failing()
    with pytest.raises(DriverDeathError):
        run_in(world, tmp_path, 1)
    assert (world.diary.count("learn"), world.diary.count("commit")) == (1, 1)


class Stuck(FakeOnlineWorld):
    """Learning fails at the first step, while the second is being sampled and does not come to an end."""

    def __init__(self) -> None:
        super().__init__(None, 6)
        self.is_sampling, self.may_end, self.has_ended = threading.Event(), threading.Event(), threading.Event()
        self.threads: list[threading.Thread] = []

    def sample(self, requests: Sequence[SampleRequest]) -> list[Rollout]:
        if requests[0].group_id.startswith("1-"):
            self.threads.append(threading.current_thread())
            self.is_sampling.set()
            self.may_end.wait(PATIENCE_S)
            self.has_ended.set()
        return super().sample(requests)

    def update(self, batch: Any, plan: Any) -> UpdateResult:
        assert self.is_sampling.wait(PATIENCE_S)
        raise DriverDeathError


def test_what_learning_raises_does_not_wait_for_ever_and_ends_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_collector, "ENDING_S", 0.1)
    world = Stuck()
    with pytest.raises(DriverDeathError):
        run_in(world, tmp_path, 3)
    assert not world.has_ended.is_set()
    world.may_end.set()
    (thread,) = world.threads
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    # What was being sampled is not scored, and the two steps after it are not sampled.
    assert world.diary == ["publish 0", "sample with 0", "score", "sample with 0"]
