"""Where the learner processes are seated, on a Ray of one CPU that has no room left."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

from plumbob.cluster.calls import wait_until
from plumbob.cluster.failures import LearnersLost
from plumbob.cluster.fleet import capacity, learner_group, reservations
from plumbob.cluster.fleet.learner_group import LearnerRanks
from plumbob.cluster.nodes import living_nodes
from plumbob.cluster.resources import Amount, Host, Need, learners, rollouts
from tests.support.pool_of_actors import TIMEOUT_S
from tests.support.small_fleet import LEARNERS, LOST, WANTED, House, free_cpus, work

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("one_cpu")]


def test_learners_that_lost_one_begin_again_where_they_were(house: House) -> None:
    before, seats_before = house.ranks.of(LEARNERS), house.seats()
    pool = house.pool()
    work(pool, 8)  # Two of four: the learners have the other half.
    assert wait_until(lambda: free_cpus() == 0.0, TIMEOUT_S)
    with suppress(RayActorError):
        ray.get(before[0].handle.die.remote())
    house.ranks.lost(LOST)
    # Nobody else's now: a worker more finds no room, whoever asks, though both learners are dead.
    assert house.seating.take_one(rollouts(WANTED), {}, ()) is None
    foreign = ray.util.placement_group([{"CPU": 0.25}])
    assert not foreign.wait(1.0)
    ray.util.remove_placement_group(foreign)
    after = house.ranks.of(LEARNERS)
    assert house.seats() == seats_before
    assert not {actor.name for actor in after} & {actor.name for actor in before}
    assert len(house.ranks.status()) == 2
    # Others have the seats when there are to be no learners.
    house.ranks.end()
    assert wait_until(lambda: free_cpus() == 0.5, TIMEOUT_S)


def test_a_host_that_will_be_taken_away_keeps_no_learners(house: House) -> None:
    house.ranks.of(LEARNERS)
    before = house.seats()
    house.ranks.lost(LOST)
    house.seating.leaving = frozenset(living_nodes())  # It is only known now.
    assert len(house.ranks.of(LEARNERS)) == 2  # There is no other host.
    assert not set(before) & set(house.seats())
    house.ranks.end()
    assert wait_until(lambda: free_cpus() == 1.0, TIMEOUT_S)


def test_learners_that_could_not_begin_give_their_seats_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.ranks.of(LEARNERS)
    house.ranks.lost(LOST)

    def lost_again(*_: object) -> None:
        raise LOST

    with monkeypatch.context() as patched, pytest.raises(LearnersLost):
        patched.setattr(learner_group, "gather_ranks", lost_again)
        house.ranks.of(LEARNERS)
    assert len(house.seats()) == 2
    house.ranks.lost(LOST)
    assert house.seats() == [] and wait_until(lambda: free_cpus() == 1.0, TIMEOUT_S)


def test_learners_begin_again_on_a_host_without_memory_and_nobody_else_does(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner_group, "NO_MEMORY_S", TIMEOUT_S)
    (killed, _), before = house.ranks.of(LEARNERS), house.seats()
    house.ranks.lost(LearnersLost("learner-0 died", oom_killed=killed.name))
    assert house.seats() == before
    # There is room for two more.
    assert house.seating.take_one(rollouts(WANTED), {}, ()) is None
    assert house.seating.take_all(learners(LEARNERS)) == []
    (_, killed), kept = house.ranks.of(LEARNERS), house.seats()
    assert kept == before
    # A second time it does not help to wait for memory there.
    house.ranks.lost(LearnersLost("learner-3 died", oom_killed=killed.name))
    assert house.seats() == []
    assert house.seating.take_all(learners(LEARNERS)) == []


def test_a_host_that_does_not_response_keeps_no_learners(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.ranks.of(LEARNERS)
    ghost = Host("10.9.9.9", "f" * 56, Amount(8.0, 0.0, 64.0))
    (first, second) = house.seats()
    house.ranks._seats = (first, replace(second, host=ghost))
    # Ray does not know yet that it is gone.
    monkeypatch.setattr(reservations, "living_nodes", lambda: {first.host.node_id, ghost.node_id})
    assert not house.seating.may_stay(house.seats())
    house.ranks._seats = (first, second)
    assert house.seating.may_stay(house.seats())


class OnlyLeaving:
    """A seating with room on hosts alone that will be taken away."""

    def __init__(self) -> None:
        self.asked: list[bool] = []

    def take_all(self, need: Need, anywhere: bool = False) -> list[str]:
        self.asked.append(anywhere)
        return ["seat"] * need.count if anywhere else []


def test_any_host_will_do_when_there_is_no_room_on_those_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner_group, "POLL_S", 0.05)
    monkeypatch.setattr(capacity, "PATIENCE_S", 0.1)
    monkeypatch.setattr(learner_group, "ANY_HOST_S", 0.2)
    seating: Any = OnlyLeaving()
    start: Any = None
    said: list[str] = []
    asked: list[Need] = []
    two = learners(LEARNERS)
    assert len(LearnerRanks(seating, start, asked.append, 60.0, said.append)._seats_for(two)) == 2
    # Looked for elsewhere again first: what Ray reports as free is a moment old, and others may make room.
    assert seating.asked[:2] == [False, False] and seating.asked[-1]
    assert asked
    (waiting,) = said
    assert waiting.startswith("waiting up to 60 s (cluster.boot_timeout_s) for room for 2 learner workers: ")
