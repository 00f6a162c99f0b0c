"""Where the learner ranks are placed, on a Ray of one CPU that has no capacity left."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

from plumbob.cluster.calls import wait_until
from plumbob.cluster.failures import LearnersLost
from plumbob.cluster.fleet import capacity, learner_ranks, reservations
from plumbob.cluster.fleet.learner_ranks import LearnerRanks
from plumbob.cluster.nodes import living_nodes
from plumbob.cluster.resources import Host, ResourceAmount, ResourceNeed, learner_need, rollout_need
from tests.support.pool_of_actors import TIMEOUT_S
from tests.support.small_fleet import LEARNERS, LOST, WANTED, SmallFleet, free_cpus, work

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("one_cpu")]


def test_learners_that_lost_one_begin_again_where_they_were(small_fleet: SmallFleet) -> None:
    before, reserved_before = small_fleet.ranks.get_or_start(LEARNERS), small_fleet.reserved()
    pool = small_fleet.pool()
    work(pool, 8)  # Two of four: the learners have the other half.
    assert wait_until(lambda: free_cpus() == 0.0, TIMEOUT_S)
    with suppress(RayActorError):
        ray.get(before[0].handle.die.remote())
    small_fleet.ranks.stop_lost(LOST)
    # Nobody else's now: no worker more fits, whoever asks, though both learners are dead.
    assert small_fleet.reservations.reserve_one(rollout_need(WANTED), {}, ()) is None
    foreign = ray.util.placement_group([{"CPU": 0.25}])
    assert not foreign.wait(1.0)
    ray.util.remove_placement_group(foreign)
    after = small_fleet.ranks.get_or_start(LEARNERS)
    assert small_fleet.reserved() == reserved_before
    assert not {actor.name for actor in after} & {actor.name for actor in before}
    assert len(small_fleet.ranks.status()) == 2
    # Others have the CPUs when there are to be no learners.
    small_fleet.ranks.stop()
    assert wait_until(lambda: free_cpus() == 0.5, TIMEOUT_S)


def test_a_draining_host_keeps_no_learners(small_fleet: SmallFleet) -> None:
    small_fleet.ranks.get_or_start(LEARNERS)
    before = small_fleet.reserved()
    small_fleet.ranks.stop_lost(LOST)
    small_fleet.reservations.draining = frozenset(living_nodes())  # It is only known now.
    assert len(small_fleet.ranks.get_or_start(LEARNERS)) == 2  # There is no other host.
    assert not set(before) & set(small_fleet.reserved())
    small_fleet.ranks.stop()
    assert wait_until(lambda: free_cpus() == 1.0, TIMEOUT_S)


def test_learners_that_could_not_begin_release_their_reservations(
    small_fleet: SmallFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_fleet.ranks.get_or_start(LEARNERS)
    small_fleet.ranks.stop_lost(LOST)

    def lost_again(*_: object) -> None:
        raise LOST

    with monkeypatch.context() as patched, pytest.raises(LearnersLost):
        patched.setattr(learner_ranks, "gather_ranks", lost_again)
        small_fleet.ranks.get_or_start(LEARNERS)
    assert len(small_fleet.reserved()) == 2
    small_fleet.ranks.stop_lost(LOST)
    assert small_fleet.reserved() == [] and wait_until(lambda: free_cpus() == 1.0, TIMEOUT_S)


def test_learners_begin_again_on_a_host_without_memory_and_nobody_else_does(
    small_fleet: SmallFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner_ranks, "NO_MEMORY_S", TIMEOUT_S)
    (killed, _), before = small_fleet.ranks.get_or_start(LEARNERS), small_fleet.reserved()
    small_fleet.ranks.stop_lost(LearnersLost("learner-0 died", oom_killed=killed.name))
    assert small_fleet.reserved() == before
    # There are CPUs for two more.
    assert small_fleet.reservations.reserve_one(rollout_need(WANTED), {}, ()) is None
    assert small_fleet.reservations.reserve_all(learner_need(LEARNERS)) == []
    (_, killed), kept = small_fleet.ranks.get_or_start(LEARNERS), small_fleet.reserved()
    assert kept == before
    # A second time it does not help to wait for memory there.
    small_fleet.ranks.stop_lost(LearnersLost("learner-3 died", oom_killed=killed.name))
    assert small_fleet.reserved() == []
    assert small_fleet.reservations.reserve_all(learner_need(LEARNERS)) == []


def test_a_host_that_does_not_answer_keeps_no_learners(
    small_fleet: SmallFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_fleet.ranks.get_or_start(LEARNERS)
    ghost = Host("10.9.9.9", "f" * 56, ResourceAmount(8.0, 0.0, 64.0))
    (first, second) = small_fleet.reserved()
    small_fleet.ranks._reserved = (first, replace(second, host=ghost))
    # Ray does not know yet that it is gone.
    monkeypatch.setattr(reservations, "living_nodes", lambda: {first.host.node_id, ghost.node_id})
    assert not small_fleet.reservations.are_usable(small_fleet.reserved())
    small_fleet.ranks._reserved = (first, second)
    assert small_fleet.reservations.are_usable(small_fleet.reserved())


class OnlyDraining:
    """Reservations that there are on draining hosts alone."""

    def __init__(self) -> None:
        self.asked: list[bool] = []

    def reserve_all(self, need: ResourceNeed, anywhere: bool = False) -> list[str]:
        self.asked.append(anywhere)
        return ["a reservation"] * need.count if anywhere else []

    def request_hosts(self, need: ResourceNeed) -> None: ...


def test_any_host_will_do_when_there_is_no_capacity_on_those_that_stay(
    small_fleet: SmallFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner_ranks, "POLL_S", 0.05)
    monkeypatch.setattr(capacity, "PATIENCE_S", 0.1)
    monkeypatch.setattr(learner_ranks, "ANY_HOST_S", 0.2)
    evicted_for: list[ResourceNeed] = []
    monkeypatch.setattr(small_fleet, "evict", evicted_for.append)
    reservations: Any = OnlyDraining()
    two = learner_need(LEARNERS)
    assert len(LearnerRanks(reservations, small_fleet, 60.0)._reserve_all(two)) == 2
    # Looked for elsewhere again first: what Ray reports as free is a moment old, and others may be evicted.
    assert reservations.asked[:2] == [False, False] and reservations.asked[-1]
    assert evicted_for and set(evicted_for) == {two}
    (waiting,) = small_fleet.said
    assert waiting.startswith("waiting up to 60 s (cluster.boot_timeout_s) for capacity for 2 learner workers: ")
