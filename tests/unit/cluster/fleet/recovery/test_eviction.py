"""Who is evicted for whom, on a Ray of one CPU that has none left."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from plumbob.cluster.calls import Call, result_of, wait_until
from plumbob.cluster.failures import WorkerLost
from plumbob.cluster.fleet import capacity, reservations
from plumbob.cluster.fleet.member import Member
from plumbob.cluster.fleet.pool import Pool
from plumbob.cluster.fleet.work_queue import Preparation
from plumbob.cluster.resources import ResourceNeed, rollout_need, scorer_need
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.configs.settings.workers import LearnerRankSettings
from plumbob.core.errors import RunFailed
from tests.support.pool_of_actors import TIMEOUT_S
from tests.support.ray_worker import BlockingWorker
from tests.support.small_fleet import LEARNERS, SMALL, WANTED, SmallFleet, work

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("one_cpu")]


def test_the_newest_workers_are_evicted_for_learners(small_fleet: SmallFleet) -> None:
    pool = small_fleet.pool()
    assert wait_until(lambda: len(work(pool, 8)) == 8 and len(pool.members) == 4, TIMEOUT_S)
    oldest = [member.actor.name for member in pool.members][:2]
    assert len(small_fleet.ranks.get_or_start(LEARNERS)) == 2
    assert [member.actor.name for member in pool.members] == oldest
    assert work(pool, 8) == list(range(0, 16, 2))
    waiting, *others = small_fleet.said
    rule = "waiting up to 120 s (cluster.boot_timeout_s) for capacity for 2 learner workers: 0.5 CPUs are missing"
    assert waiting.startswith(rule)
    assert others == [
        "rollout-3 is evicted for the learner workers",
        "rollout-2 is evicted for the learner workers",
        "no host has capacity for another rollout worker; running with 2",
    ]
    small_fleet.ranks.stop()
    assert wait_until(lambda: len(work(pool, 1)) == 1 and len(pool.members) == 4, TIMEOUT_S)


def test_nobody_else_gets_what_an_eviction_frees(small_fleet: SmallFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a pool that is at work meanwhile, whose workers go when they have ended what they are at."""
    # A loaded machine may need longer to free it than a run waits for it.
    monkeypatch.setattr(capacity, "AGAIN_S", 4 * TIMEOUT_S)
    monkeypatch.setattr(reservations, "HOLD_S", 4 * TIMEOUT_S)
    pool, end = small_fleet.pool(), Event()
    assert wait_until(lambda: len(work(pool, 8)) == 8 and len(pool.members) == 4, TIMEOUT_S)

    def work_on() -> None:
        while not end.is_set():
            work(pool, 8)

    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(work_on)
        assert len(small_fleet.ranks.get_or_start(LEARNERS)) == 2
        end.set()
        working.result(TIMEOUT_S)
    assert len(pool.members) == 2
    assert [message for message in small_fleet.said if "is evicted" in message] == [
        "rollout-3 is evicted for the learner workers",
        "rollout-2 is evicted for the learner workers",
    ]


def test_capacity_is_held_for_a_while_for_whom_others_were_evicted(
    small_fleet: SmallFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = ResourceNeed("scorer", "reward.num_workers", 1, 0.25, 0.0, 0.0, spread=True)
    small_fleet.reservations.hold_for("scorer")
    assert small_fleet.reservations.reserve_one(rollout_need(WANTED), {}, ()) is None
    given = small_fleet.reservations.reserve_one(scorer, {}, ())
    other = small_fleet.reservations.reserve_one(rollout_need(WANTED), {}, ())  # What was held has been given.
    assert given is not None and other is not None
    small_fleet.reservations.hold_for("scorer")
    monkeypatch.setattr(reservations, "HOLD_S", 0.0)
    small_fleet.reservations.hold_for("scorer")
    last = small_fleet.reservations.reserve_one(rollout_need(WANTED), {}, ())
    assert last is not None
    for reservation in (given, other, last):
        small_fleet.reservations.release(reservation)


def test_who_was_draining_when_work_ended_goes_for_learners(small_fleet: SmallFleet) -> None:
    """Nobody has looked at the pool since: it had become too large while its last chunks were out."""
    pool = small_fleet.pool()
    assert wait_until(lambda: len(work(pool, 8)) == 8 and len(pool.members) == 4, TIMEOUT_S)
    for member in pool.members[1:]:
        member.is_draining = True
    assert len(small_fleet.ranks.get_or_start(LEARNERS)) == 2
    assert len(pool.members) == 1 and not any("is evicted" in message for message in small_fleet.said)


def test_others_are_evicted_for_a_pool_with_nobody_left(
    small_fleet: SmallFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = small_fleet.pool()
    assert wait_until(lambda: len(work(pool, 8)) == 8 and len(pool.members) == 4, TIMEOUT_S)
    wanted = ScorerSettings(model="/m", num_workers=2, num_cpus=0.5, memory_gib=0.0)
    opening = Preparation(lambda actor: actor.handle.double.remote([1]), "opening")
    scoring = small_fleet.pools.get_or_open(scorer_need(wanted), wanted, BlockingWorker, "reward", opening)
    assert work(scoring, 4) == [0, 2, 4, 6]
    # For one, though two are wanted.
    assert (len(scoring.members), len(pool.members)) == (1, 2)
    waiting, *others = small_fleet.said
    rule = "waiting up to 120 s (cluster.boot_timeout_s) for capacity for a scorer worker, and no worker is left: "
    assert waiting.startswith(f"{rule}0.5 CPUs are missing")
    assert others == [
        "rollout-3 is evicted for the scorer workers",
        "rollout-2 is evicted for the scorer workers",
        "no host has capacity for another scorer worker; running with 1",
    ]


def test_every_pool_keeps_a_worker_and_none_goes_for_nothing(
    small_fleet: SmallFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = small_fleet.pool()
    assert wait_until(lambda: len(work(pool, 8)) == 8 and len(pool.members) == 4, TIMEOUT_S)
    with (
        monkeypatch.context() as patched,
        pytest.raises(RunFailed, match=r"no capacity for the learners after 3 s \(cluster\.b"),
    ):
        patched.setattr(small_fleet.ranks, "_boot_timeout_s", 3.0)
        small_fleet.ranks.get_or_start(LearnerRankSettings(num_workers=4, **SMALL))
    assert len(pool.members) == 4
    assert len(small_fleet.ranks.get_or_start(LearnerRankSettings(num_workers=3, **SMALL))) == 3
    assert len(pool.members) == 1


def at_work(pool: Pool) -> list[Member]:
    return [member for member in pool.members if member.num_items]


def test_no_worker_is_started_on_a_host_without_memory(
    small_fleet: SmallFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = small_fleet.pool()
    # All have begun: one that is still opening its model would take no work, and not be killed.
    assert wait_until(lambda: len(work(pool, 8)) == 8 and len(at_work(pool)) == 4, TIMEOUT_S)

    def killed(call: Call, doing: str) -> Any:
        if call.actor.name == "rollout-0":
            raise WorkerLost("rollout-0 died", oom_killed="rollout-0")
        return result_of(call, doing)

    monkeypatch.setattr("plumbob.cluster.fleet.role_workers.NO_MEMORY_S", TIMEOUT_S)
    monkeypatch.setattr("plumbob.cluster.fleet.pool.result_of", killed)
    assert work(pool, 8) == list(range(0, 16, 2))
    assert [member.actor.name for member in pool.members] == ["rollout-1", "rollout-2", "rollout-3"]
    assert small_fleet.said == ["no host has capacity for another rollout worker; running with 3"]
