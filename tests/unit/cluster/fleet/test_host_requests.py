"""What Ray's autoscaler is told of workers without capacity, by several runs on one Ray: without a Ray."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plumbob.cluster import session
from plumbob.cluster.fleet import learner_ranks, reservations
from plumbob.cluster.fleet.learner_ranks import LearnerRanks
from plumbob.cluster.fleet.reservations import REPEATED_S, Reservations
from plumbob.cluster.resources import ResourceNeed, learner_need
from plumbob.cluster.session import Session
from plumbob.configs.settings.workers import ClusterSettings, LearnerRankSettings
from tests.support.recording_listener import Watching

TWO = ResourceNeed("rollout", "rollout.num_workers", 2, 1.0, 0.0, 0.0, spread=True)
NONE = replace(TWO, count=0)
THREE_LEARNERS = LearnerRankSettings(num_workers=3)


def test_a_run_that_waits_is_heard_again_after_another_has_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = [100.0], list[Any]()
    monkeypatch.setattr(reservations, "request_resources", lambda bundles: told.append(bundles))
    monkeypatch.setattr(reservations.time, "monotonic", lambda: now[0])
    first, second = Reservations(), Reservations()
    first.request_hosts(TWO)
    second.request_hosts(replace(TWO, count=1))
    second.request_hosts(NONE)  # It has what it asked for, and that is all that the autoscaler knows now.
    asked = [{"CPU": 1.0}, {"CPU": 1.0}]
    assert told == [asked, [{"CPU": 1.0}], []]
    now[0] += REPEATED_S / 2
    first.request_hosts(TWO)  # As at every tick: the autoscaler's work is not begun anew each time.
    assert len(told) == 3
    now[0] += REPEATED_S
    first.request_hosts(TWO)
    second.request_hosts(NONE)  # Who lacks nothing is silent.
    assert told[3:] == [asked]
    first.request_hosts(NONE)
    now[0] += 2 * REPEATED_S
    first.request_hosts(NONE)
    assert told[4:] == [[]]


class ShortForAWhile:
    """Reservations that there are when they have been asked for three times."""

    def __init__(self) -> None:
        self.requested: list[int] = []
        self._num_asked = 0

    def request_hosts(self, need: ResourceNeed) -> None:
        self.requested.append(need.count)

    def reserve_all(self, need: ResourceNeed, anywhere: bool = False) -> list[str]:
        self._num_asked += 1
        return ["a reservation"] * need.count if self._num_asked > 3 else []

    def free_plus_reserved(self) -> tuple[()]:
        return ()

    def use_plan(self, found: Any) -> None: ...


def test_learners_ask_as_long_as_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner_ranks, "POLL_S", 0.0)
    monkeypatch.setattr(learner_ranks, "shortage_of", lambda need: "CPUs are missing")
    short: Any = ShortForAWhile()
    ranks = LearnerRanks(short, SimpleNamespace(notify=lambda _: None), 60.0)  # type: ignore[arg-type]
    assert len(ranks._reserve_all(learner_need(THREE_LEARNERS))) == 3
    assert short.requested == [3, 3, 3, 0]


def test_a_run_that_waits_to_begin_asks_as_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = iter([False, False, True, True])
    monkeypatch.setattr(session, "plan", lambda *_: SimpleNamespace(fits=next(plans)))
    monkeypatch.setattr(session, "hosts", lambda free: ())

    def fitting_plan(found: Any, *_: Any) -> Any:
        while not (plan := found()).fits:
            pass
        return plan

    monkeypatch.setattr(session, "fitting_plan", fitting_plan)
    waiting = Session(ClusterSettings(address="auto", wait_s=60), tmp_path, Watching())
    short: Any = ShortForAWhile()
    monkeypatch.setattr(waiting, "_reservations", short)
    waiting.admit((TWO,))
    assert short.requested == [2, 2, 0]
