"""How many workers may be lost, which hosts are left alone, and how long room is waited for."""

import time

import pytest

from plumbob.cluster.failures import WorkerLost
from plumbob.cluster.fleet.capacity import Capacity
from plumbob.cluster.fleet.recovery.budget import RestartBudget
from plumbob.cluster.fleet.recovery.unfit_hosts import UnfitHosts
from plumbob.core.errors import RunFailed


def test_what_a_worker_lost_says_is_short() -> None:
    said: list[str] = []
    restarts = RestartBudget(1)
    restarts.spend(WorkerLost("scorer-0 died\nits last words"), "scorer 0", said.append)
    assert said == ["scorer-0 died; it is replaced (1 of 1 since the last step)"]
    restarts.stepped("ppo", 1)
    restarts.spend(WorkerLost("scorer-1 died"), "scorer 0", said.append)
    with pytest.raises(RunFailed, match=r"^scorer-2 died\nthat is worker number 2 to be lost in its place"):
        restarts.spend(WorkerLost("scorer-2 died"), "scorer 0", said.append)
    assert restarts.total == 3


def test_each_place_has_a_budget_of_its_own() -> None:
    restarts = RestartBudget(1)
    for place in range(8):  # A host with all its workers.
        restarts.spend(WorkerLost("died"), f"rollout {place}", lambda _: None)
    with pytest.raises(RunFailed):
        restarts.spend(WorkerLost("died"), "rollout 3", lambda _: None)


def test_a_step_that_is_made_again_forgives_nothing() -> None:
    # The learners die at each commit of step 2, behind its line of metrics.
    restarts = RestartBudget(2)
    restarts.stepped("ppo", 1)
    for _ in range(2):
        restarts.stepped("ppo", 2)
        restarts.spend(WorkerLost("learner-0 died while saving"), "learners", lambda _: None)
    restarts.stepped("ppo", 2)
    with pytest.raises(RunFailed):
        restarts.spend(WorkerLost("learner-0 died while saving"), "learners", lambda _: None)
    restarts.stepped("dpo", 1)  # Another stage begins at its own first step.
    restarts.spend(WorkerLost("learner-0 died while saving"), "learners", lambda _: None)


def test_a_host_is_left_alone_after_two_failures_for_a_while() -> None:
    unfit, soon_over = UnfitHosts(for_s=600.0), UnfitHosts(for_s=0.0)
    for hosts in (unfit, soon_over):
        hosts.failed("a")
        hosts.failed("b")
        assert hosts.now() == set()
        hosts.failed("a")
    assert unfit.now() == {"a"} and soon_over.now() == set()


def test_room_is_waited_for_from_when_nobody_is_left() -> None:
    said: list[str] = []
    room = Capacity(
        "rollout", 0.0, said.append, lambda: pytest.fail("it is too late for that"), lambda: "a GPU is missing"
    )
    for num_left in (3, 3, 0):  # However long it was short before.
        room.lacked(num_left)
    waiting = (
        "waiting up to 0 s (cluster.boot_timeout_s) for room for a rollout worker, as there is none: a GPU is missing"
    )
    assert said == ["no host has room for another rollout worker; going on with 3", waiting]
    with pytest.raises(
        RunFailed,
        match=r"no room for a rollout worker after 0 s \(cluster.boot_timeout_s\), and there is none: a GPU is",
    ):
        room.lacked(0)
    room.sufficed()
    room.lacked(0)
    assert said[2:] == [waiting]


def test_room_is_asked_for_after_a_while_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = [0.0], list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    room = Capacity("rollout", 600.0, lambda _: None, lambda: asked.append(now[0]), lambda: "")
    for now[0], num_left in (
        (0.0, 1),
        (4.0, 0),
        (8.0, 0),
        (9.5, 0),
        (12.0, 0),
        (15.0, 0),
        (30.0, 1),
        (40.0, 0),
        (46.0, 0),
    ):
        room.lacked(num_left)
    # 5 s and more after nobody was left, or after it was asked for last.
    assert asked == [9.5, 15.0, 46.0]
