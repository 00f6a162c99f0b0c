"""Who joins a pool, and who of them is in the place of a member that was lost: without a Ray."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plumbob.cluster.calls import Actor, Call
from plumbob.cluster.failures import WorkerLost
from plumbob.cluster.fleet import membership, pool
from plumbob.cluster.fleet.member import Member
from plumbob.cluster.fleet.membership import Membership
from plumbob.cluster.fleet.pool import Pool
from plumbob.cluster.fleet.work_queue import Preparation

OPENING = Preparation(lambda actor: actor.name, "opening the model")
"""Whose calls are known by the name of the actor."""


class OneHost:
    """Has capacity for any number, or for none. Satisfies `PoolBackend`."""

    def __init__(self) -> None:
        self.has_capacity = True
        self.happened: list[tuple[str, str, bool]] = []
        self._numbers = count()

    def start_worker(self) -> Member | None:
        if not self.has_capacity:
            return None
        reservation: Any = SimpleNamespace(host=SimpleNamespace(node_id="n1", address="10.0.0.1"))
        return Member(Actor(f"rollout-{next(self._numbers)}", None, Path("no.log")), reservation)

    def stop_workers(self, members: Sequence[Member], are_lost: bool) -> None: ...

    def is_draining(self, member: Member) -> bool:
        return False

    def evict(self) -> None: ...

    def request_hosts(self, count: int) -> None: ...

    def shortage(self) -> str:
        return "a CPU is missing"

    def worker_joined(self, member: Member) -> None:
        self.happened.append(("joined", member.actor.name, member.is_replacement))

    def worker_lost(self, member: Member, lost: WorkerLost, num_items: int) -> None:
        self.happened.append(("lost", member.actor.name, member.is_replacement))

    def poll_control(self) -> None: ...

    def notify(self, message: str) -> None: ...


def replacements(members: Membership) -> list[str]:
    """Of those that there are once as many as can be have joined."""
    members.fill()
    for member in members.members:
        member.opened_with = OPENING
    return [member.actor.name for member in members.members if member.is_replacement]


def test_whoever_is_wanted_anew_replaces_nobody() -> None:
    members = Membership("rollout", 3, OneHost(), 60.0, ())
    assert replacements(members) == []
    members.stop_lost(members.members[2])
    members.target_size = 2  # The lost one is not replaced.
    assert replacements(members) == []
    members.target_size = 3
    assert replacements(members) == [] and len(members.members) == 3


def test_a_lost_member_is_replaced_once_whenever_there_is_capacity() -> None:
    host = OneHost()
    members = Membership("rollout", 3, host, 60.0, ())
    assert replacements(members) == []
    members.stop_lost(members.members[0])
    host.has_capacity, members.target_size = False, 4
    assert replacements(members) == []
    host.has_capacity = True
    assert replacements(members) == ["rollout-3"] and len(members.members) == 4


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of actors whose calls end well; those of others are lost."""
    good: set[str] = set()

    def result_of(call: Call, doing: str) -> None:
        if call.actor.name not in good:
            raise WorkerLost(f"{call.actor.name} died while {doing}")

    monkeypatch.setattr(membership, "living_nodes", lambda: {"n1"})
    monkeypatch.setattr(membership, "ended_among", frozenset)
    monkeypatch.setattr(pool, "ray", SimpleNamespace(wait=lambda results, **_: (results[:1], results[1:])))
    monkeypatch.setattr(pool, "result_of", result_of)
    return good


def test_a_member_has_joined_when_it_has_opened_its_model(answers: set[str]) -> None:
    """Not when its actor was asked for: that may never begin."""
    host = OneHost()
    members = Membership("rollout", 1, host, 60.0, ())
    one = Pool("rollout", members, host, max_restarts=9)
    answers.add("rollout-1")
    one.open(OPENING)
    assert host.happened == [("lost", "rollout-0", False), ("joined", "rollout-1", False)]
    # Of those that come in its place the first that answers replaces it.
    host.happened.clear()
    answers.symmetric_difference_update({"rollout-1", "rollout-3"})
    one.load(Preparation(lambda actor: actor.name, "loading version 1"))
    lost = [("lost", "rollout-1", False), ("lost", "rollout-2", True)]
    assert host.happened == [*lost, ("joined", "rollout-3", True)]
    # Another model makes nobody new.
    one.open(Preparation(lambda actor: actor.name, "opening another"))
    assert len(host.happened) == 3
