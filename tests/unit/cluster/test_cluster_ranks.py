"""Where the learner processes are seated, on a Ray of one CPU that has no room left."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

from cluster import ranks, room, seats
from cluster.health import Actor, Call, outcome, wait_until
from cluster.hosts import hosts, living_nodes
from cluster.needs import Need, learners, rollouts, scorers
from cluster.placement import Amount, Host
from cluster.pool import Pool
from cluster.pools import Pools
from cluster.ranks import Ranks
from cluster.restarts import LearnersLost, WorkerLost
from cluster.seats import Seat, Seating, options
from cluster.work import Preparation
from configs.errors import RunFailed
from configs.roles import Cluster, LearnerRanks, Rollout, Scorer
from tests.crew import TIMEOUT_S
from tests.ray_worker import Worker
from tests.watching import Watching

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("one_cpu")]

SMALL: dict[str, Any] = {"num_cpus": 0.25, "memory_gib": 0.0}
WANTED = Rollout(num_workers=4, **SMALL)
LEARNERS = LearnerRanks(num_workers=2, **SMALL)
LOST = LearnersLost("learner-0 died")


class House:
    """Learners and rollout workers on the seats of one Ray; all are small actors."""

    def __init__(self, folder: Path) -> None:
        self.watching = Watching()
        self.seating = Seating()
        self._folder, self._numbers = folder, count()
        nobody: Any = lambda *_: None  # noqa: E731
        cluster = Cluster(boot_timeout_s=TIMEOUT_S)
        self.pools = Pools(cluster, self.seating, self._start, nobody, self._said, nobody, nobody)
        self.ranks = Ranks(self.seating, self._start, self.pools.make_room, TIMEOUT_S, self._said)

    def pool(self) -> Pool:
        opening = Preparation(lambda actor: actor.handle.double.remote([1]), "opening")
        return self.pools.opened(rollouts(WANTED), WANTED, Worker, "model", opening)

    def seats(self) -> list[Seat]:
        return list(self.ranks._seats)

    def end(self) -> None:
        self.pools.close(self.pools.needs())
        self.ranks.end()

    @property
    def said(self) -> list[str]:
        return [message for _, message in self.watching.notes]

    def _said(self, message: str) -> None:
        self.watching.said("cluster", message)

    def _start(self, need: Need, seat: Seat, kind: type, num_threads: int) -> Actor:
        name = f"{need.role}-{next(self._numbers)}"
        log = self._folder / f"{name}.log"
        return Actor(name, ray.remote(**options(need, seat, 1))(Worker).remote(log), log)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(ranks, "PATIENCE_S", 1.0)
    monkeypatch.setattr(ranks, "ANY_HOST_S", 2.0)
    assert wait_until(lambda: free_cpus() == 1.0, TIMEOUT_S)  # What the test before held.
    made = House(tmp_path)
    yield made
    made.end()


def free_cpus() -> float:
    return sum(host.free.cpus for host in hosts(free=True))


def work(pool: Pool, num_items: int) -> list[int]:
    return pool.work(range(num_items), 1, lambda actor, chunk: actor.handle.double.remote(list(chunk)), "doubling")


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


def test_the_newest_workers_make_room_for_learners(house: House) -> None:
    pool = house.pool()
    assert wait_until(lambda: len(work(pool, 8)) == 8 and len(pool.members) == 4, TIMEOUT_S)
    oldest = [member.actor.name for member in pool.members][:2]
    assert len(house.ranks.of(LEARNERS)) == 2
    assert [member.actor.name for member in pool.members] == oldest
    assert work(pool, 8) == list(range(0, 16, 2))
    waiting, *others = house.said
    rule = "waiting up to 120 s (cluster.boot_timeout_s) for room for 2 learner workers: 0.5 CPUs are missing"
    assert waiting.startswith(rule)
    assert others == [
        "rollout-3 makes room for the learner workers",
        "rollout-2 makes room for the learner workers",
        "no host has room for another rollout worker; going on with 2",
    ]
    house.ranks.end()
    assert wait_until(lambda: len(work(pool, 1)) == 1 and len(pool.members) == 4, TIMEOUT_S)


def test_nobody_else_gets_the_room_that_is_made(house: House) -> None:
    """Not even a pool that is at work meanwhile, whose workers go when they have ended what they are at."""
    pool, end = house.pool(), Event()
    assert wait_until(lambda: len(work(pool, 8)) == 8 and len(pool.members) == 4, TIMEOUT_S)

    def work_on() -> None:
        while not end.is_set():
            work(pool, 8)

    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(work_on)
        assert len(house.ranks.of(LEARNERS)) == 2
        end.set()
        working.result(TIMEOUT_S)
    assert len(pool.members) == 2
    assert [message for message in house.said if "makes room" in message] == [
        "rollout-3 makes room for the learner workers",
        "rollout-2 makes room for the learner workers",
    ]


def test_room_is_kept_for_whom_it_is_made_for_a_while(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Need("scorer", "reward.num_workers", 1, 0.25, 0.0, 0.0, spread=True)
    house.seating.claim("scorer")
    assert house.seating.take_one(rollouts(WANTED), {}, ()) is None
    given = house.seating.take_one(scorer, {}, ())
    other = house.seating.take_one(rollouts(WANTED), {}, ())  # The claim has been met.
    assert given is not None and other is not None
    house.seating.claim("scorer")
    monkeypatch.setattr(seats, "CLAIM_S", 0.0)
    house.seating.claim("scorer")
    last = house.seating.take_one(rollouts(WANTED), {}, ())
    assert last is not None
    for seat in (given, other, last):
        house.seating.release(seat)


def test_who_was_leaving_when_work_ended_goes_for_learners(house: House) -> None:
    """Nobody has looked at the pool since: it had become too large while its last chunks were out."""
    pool = house.pool()
    assert wait_until(lambda: len(work(pool, 8)) == 8 and len(pool.members) == 4, TIMEOUT_S)
    for member in pool.members[1:]:
        member.is_leaving = True
    assert len(house.ranks.of(LEARNERS)) == 2
    assert len(pool.members) == 1 and not any("makes room" in message for message in house.said)


def test_a_pool_with_nobody_left_is_made_room_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PATIENCE_S", 1.0)
    pool = house.pool()
    assert wait_until(lambda: len(work(pool, 8)) == 8 and len(pool.members) == 4, TIMEOUT_S)
    wanted = Scorer(model="/m", num_workers=2, num_cpus=0.5, memory_gib=0.0)
    opening = Preparation(lambda actor: actor.handle.double.remote([1]), "opening")
    scoring = house.pools.opened(scorers(wanted), wanted, Worker, "reward", opening)
    assert work(scoring, 4) == [0, 2, 4, 6]
    # For one, though two are wanted.
    assert (len(scoring.members), len(pool.members)) == (1, 2)
    waiting, *others = house.said
    rule = "waiting up to 120 s (cluster.boot_timeout_s) for room for a scorer worker, as there is none: "
    assert waiting.startswith(f"{rule}0.5 CPUs are missing")
    assert others == [
        "rollout-3 makes room for the scorer workers",
        "rollout-2 makes room for the scorer workers",
        "no host has room for another scorer worker; going on with 1",
    ]


def test_every_pool_keeps_a_worker_and_none_goes_for_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = house.pool()
    assert wait_until(lambda: len(work(pool, 8)) == 8 and len(pool.members) == 4, TIMEOUT_S)
    with (
        monkeypatch.context() as patched,
        pytest.raises(RunFailed, match=r"no room for the learners after 3 s \(cluster\.b"),
    ):
        patched.setattr(house.ranks, "_boot_timeout_s", 3.0)
        house.ranks.of(LearnerRanks(num_workers=4, **SMALL))
    assert len(pool.members) == 4
    assert len(house.ranks.of(LearnerRanks(num_workers=3, **SMALL))) == 3
    assert len(pool.members) == 1


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
        patched.setattr(ranks, "gather_ranks", lost_again)
        house.ranks.of(LEARNERS)
    assert len(house.seats()) == 2
    house.ranks.lost(LOST)
    assert house.seats() == [] and wait_until(lambda: free_cpus() == 1.0, TIMEOUT_S)


def test_learners_begin_again_on_a_host_without_memory_and_nobody_else_does(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "NO_MEMORY_S", TIMEOUT_S)
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


def test_no_worker_is_started_on_a_host_without_memory(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = house.pool()
    assert wait_until(lambda: len(work(pool, 8)) == 8 and len(pool.members) == 4, TIMEOUT_S)

    def killed(call: Call, doing: str) -> Any:
        if call.actor.name == "rollout-0":
            raise WorkerLost("rollout-0 died", oom_killed="rollout-0")
        return outcome(call, doing)

    monkeypatch.setattr("cluster.pools.NO_MEMORY_S", TIMEOUT_S)
    monkeypatch.setattr("cluster.pool.outcome", killed)
    assert work(pool, 8) == list(range(0, 16, 2))
    assert [member.actor.name for member in pool.members] == ["rollout-1", "rollout-2", "rollout-3"]
    assert house.said == ["no host has room for another rollout worker; going on with 3"]


def test_a_host_that_does_not_answer_keeps_no_learners(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.ranks.of(LEARNERS)
    ghost = Host("10.9.9.9", "f" * 56, Amount(8.0, 0.0, 64.0))
    (first, second) = house.seats()
    house.ranks._seats = (first, replace(second, host=ghost))
    # Ray does not know yet that it is gone.
    monkeypatch.setattr(seats, "living_nodes", lambda: {first.host.node_id, ghost.node_id})
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
    monkeypatch.setattr(ranks, "POLL_S", 0.05)
    monkeypatch.setattr(ranks, "PATIENCE_S", 0.1)
    monkeypatch.setattr(ranks, "ANY_HOST_S", 0.2)
    seating: Any = OnlyLeaving()
    start: Any = None
    said: list[str] = []
    asked: list[Need] = []
    two = learners(LEARNERS)
    assert len(Ranks(seating, start, asked.append, 60.0, said.append)._seats_for(two)) == 2
    # Looked for elsewhere again first: what Ray reports as free is a moment old, and others may make room.
    assert seating.asked[:2] == [False, False] and seating.asked[-1]
    assert asked
    (waiting,) = said
    assert waiting.startswith("waiting up to 60 s (cluster.boot_timeout_s) for room for 2 learner workers: ")
