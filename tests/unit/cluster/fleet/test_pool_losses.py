"""A pool of real Ray actors that die, fail or answer too late."""

from collections.abc import Callable
from typing import Any

import pytest
import ray

from plumbob.cluster.calls import Actor
from plumbob.cluster.fleet.member import Member, PoolSnapshot, WorkerLossReason
from plumbob.cluster.fleet.work_queue import Preparation
from plumbob.core.errors import RunFailed
from tests.support.pool_of_actors import TIMEOUT_S, PoolOfActors, rules

pytestmark = pytest.mark.cluster


def double(actor: Actor, chunk: Any) -> Any:
    return actor.handle.double.remote(list(chunk))


def test_a_dead_workers_chunk_is_done_by_another(pool_of: Callable[..., PoolOfActors]) -> None:
    two = pool_of(2)
    done: list[tuple[str, int]] = []

    def call(actor: Actor, chunk: Any) -> Any:
        done.append((actor.name, chunk[0]))
        return actor.handle.die.remote() if len(done) == 1 else double(actor, chunk)

    assert two.pool.work(range(6), 1, call, "doubling") == [0, 2, 4, 6, 8, 10]
    # Chunk 0 was handed out twice, the others once each; nobody who died came back.
    assert sorted(chunk for _, chunk in done) == [0, 0, 1, 2, 3, 4, 5]
    assert [name for name, _ in done].count("rollout-0") == 1
    ((stage, message),) = two.watching.notes
    assert stage == "cluster" and message.startswith("rollout-0 died while doubling: ")
    assert message.endswith("it is replaced (1 of 2 since the last step)")
    assert two.reissued == [1]
    two.pool.work([1], 1, double, "doubling")
    assert len(two.pool.status()) == 2


def test_too_many_deaths_in_one_slot_end_the_run_with_the_last_words(pool_of: Callable[..., PoolOfActors]) -> None:
    one, died = pool_of(1, max_restarts=1), set[int]()

    def call(actor: Actor, chunk: Any) -> Any:  # Each chunk kills one.
        if chunk[0] in died:
            return double(actor, chunk)
        died.add(chunk[0])
        return actor.handle.die.remote()

    with pytest.raises(RunFailed) as caught:
        one.pool.work(range(3), 1, call, "doubling")
    message = str(caught.value)
    assert message.startswith("rollout-1 died while doubling: ") and "line 16" in message
    assert message.endswith(
        "that is worker number 2 to be lost in its slot since the last step, and cluster.max_restarts=1"
    )


@pytest.mark.parametrize("is_late", [False, True])
def test_a_chunk_that_costs_worker_after_worker_ends_the_run(
    pool_of: Callable[..., PoolOfActors], monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    four = pool_of(4, max_restarts=1)
    four.pool.work(range(4), 1, double, "doubling")
    assert len(four.started) == 4
    if is_late:
        monkeypatch.setattr(four.pool.membership, "worker_loss_rules", rules(call_timeout_s=0.01))

    def call(actor: Actor, chunk: Any) -> Any:
        return actor.handle.hold.remote() if is_late else actor.handle.die.remote()

    with pytest.raises(RunFailed) as caught:
        four.pool.work(range(2), 2, call, "doubling")
    message = str(caught.value)
    # The second loss is one too many, and the first in its slot: three of four were idle.
    assert message.startswith("rollout-1: still doubling after" if is_late else "rollout-1 died while doubling: ")
    assert message.endswith(
        "that is worker number 2 to be lost while it was doubling the same 2 items, and cluster.max_restarts=1"
    )
    assert four.reissued == [2]


def crash(actor: Actor, chunk: Any) -> Any:
    return actor.handle.crash.remote()


def test_what_crashes_two_workers_before_they_have_worked_ends_the_run(pool_of: Callable[..., PoolOfActors]) -> None:
    one = pool_of(1, max_restarts=9)
    with pytest.raises(RunFailed) as caught:
        one.pool.work(range(1), 1, crash, "doubling")
    message = str(caught.value)
    assert message.startswith("rollout-1 died while doubling: SIGILL, an illegal instruction: compiled code used one ")
    assert message.splitlines()[1:3] == [f"the end of {one.started[1].actor.log}:", "  its last words"]
    assert "that is rollout worker number 2 to crash by SIGILL before it had done anything" in message
    assert len(one.started) == 2


def test_a_host_where_a_worker_crashes_is_blamed_where_others_have_worked(pool_of: Callable[..., PoolOfActors]) -> None:
    two, crashed = pool_of(2, max_restarts=9), list[str]()
    two.pool.work(range(1), 1, double, "doubling")  # By one of them.
    (worked,) = [member.actor for member in two.pool.members if member.num_items]

    def call(actor: Actor, chunk: Any) -> Any:
        if actor is worked and not crashed:
            return actor.handle.double_when_released.remote(list(chunk))
        if crashed:
            return double(actor, chunk)
        crashed.append(actor.name)
        worked.handle.release.remote()
        return crash(actor, chunk)

    assert two.pool.work(range(4), 1, call, "doubling") == [0, 2, 4, 6]
    ((_, said),) = two.watching.notes
    (host,) = {member.reservation.host.address for member in two.pool.members}
    assert said.startswith(f"{crashed[0]} on {host}: {crashed[0]} died while doubling: SIGILL, an illegal")


def test_a_worker_that_crashes_at_its_second_chunk_is_replaced(pool_of: Callable[..., PoolOfActors]) -> None:
    one, died = pool_of(1, max_restarts=9), set[int]()

    def call(actor: Actor, chunk: Any) -> Any:
        if chunk[0] % 2 and chunk[0] not in died:
            died.add(chunk[0])
            return crash(actor, chunk)
        return double(actor, chunk)

    assert one.pool.work(range(5), 1, call, "doubling") == [0, 2, 4, 6, 8]
    assert len(one.started) == 3


def test_a_chunk_is_not_blamed_for_workers_whose_hosts_are_taken_away(pool_of: Callable[..., PoolOfActors]) -> None:
    one, taken = pool_of(1, max_restarts=1), []

    def call(actor: Actor, chunk: Any) -> Any:
        taken.append(actor.name)
        if len(taken) > 3:
            return double(actor, chunk)
        one.draining.add(actor.name)
        return actor.handle.die.remote()

    assert one.pool.work(range(1), 1, call, "doubling") == [0]
    assert len(taken) == 4


def test_many_that_die_at_once_are_each_lost_once(pool_of: Callable[..., PoolOfActors]) -> None:
    some, done = pool_of(4, max_restarts=1), []

    def call(actor: Actor, chunk: Any) -> Any:
        done.append(actor.name)
        return actor.handle.die.remote() if len(done) <= 4 else double(actor, chunk)

    some.pool.work(range(4), 1, double, "doubling")
    assert len(some.started) == 4
    assert some.pool.work(range(8), 1, call, "doubling") == list(range(0, 16, 2))
    assert len(set(done[:4])) == 4 and len(some.started) == 8
    deaths = [said for _, said in some.watching.notes if " died " in said]
    assert len(deaths) == 4 and all(said.endswith("(1 of 1 since the last step)") for said in deaths)


def test_who_fails_with_an_unexpected_error_is_replaced(pool_of: Callable[..., PoolOfActors]) -> None:
    two, tried = pool_of(2), []

    def call(actor: Actor, chunk: Any) -> Any:
        if chunk[0] == 1:
            tried.append(actor.name)
        return (
            actor.handle.fail.remote("other") if tried and len(tried) == 1 and chunk[0] == 1 else double(actor, chunk)
        )

    assert two.pool.work(range(4), 1, call, "doubling") == [0, 2, 4, 6]
    ((_, said),) = two.watching.notes
    assert said.startswith(f"{tried[0]} failed while doubling: KeyError('something unexpected')")
    assert len(tried) == 2 and tried[0] != tried[1]


def test_a_chunk_that_two_workers_fail_at_ends_the_run(pool_of: Callable[..., PoolOfActors]) -> None:
    one = pool_of(1, max_restarts=9)
    with pytest.raises(RunFailed, match="rollout-1 failed while doubling: KeyError"):
        one.pool.work(range(2), 1, lambda actor, chunk: actor.handle.fail.remote("other"), "doubling")


def test_a_death_while_a_version_is_loaded(pool_of: Callable[..., PoolOfActors]) -> None:
    two = pool_of(2)
    calls: list[str] = []

    def load(actor: Actor) -> Any:
        calls.append(actor.name)
        return actor.handle.die.remote() if len(calls) == 1 else actor.handle.double.remote([1])

    two.pool.load(Preparation(load, "loading version 1"))
    assert two.pool.work(range(8), 1, double, "doubling") == list(range(0, 16, 2))
    # Everybody that worked had loaded the version before, the replacement too.
    working = {row.worker for row in two.pool.status() if row.num_done}
    assert working and working <= set(calls[1:])


def test_a_worker_that_answers_too_late_is_lost(
    pool_of: Callable[..., PoolOfActors], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pool_of(1, max_restarts=0)
    one.pool.work([1], 1, double, "doubling")
    monkeypatch.setattr(one.pool.membership, "worker_loss_rules", rules(call_timeout_s=0.01))
    late = r"rollout-0: still sampling after 0 s \(cluster\.call_timeout_s\)\n.*rollout-0\.log"
    with pytest.raises(RunFailed, match=late):
        one.pool.work([1], 1, lambda actor, chunk: actor.handle.hold.remote(), "sampling")


def test_a_call_that_ended_while_nobody_looked_is_not_late(
    pool_of: Callable[..., PoolOfActors], monkeypatch: pytest.MonkeyPatch
) -> None:
    two, calls = pool_of(2), list[Any]()

    def begin(actor: Actor) -> Any:
        calls.append(actor.handle.hold.remote() if calls else actor.handle.double.remote([]))
        return calls[-1]

    two.pool.open(Preparation(begin, "opening"))  # Returns when the first has ended.
    ray.get(two.started[1].actor.handle.release.remote(), timeout=TIMEOUT_S)
    assert ray.get(calls[1], timeout=TIMEOUT_S) == "held"
    monkeypatch.setattr(two.pool.membership, "worker_loss_rules", rules(boot_timeout_s=1e-9))
    assert two.pool.work(range(4), 1, double, "doubling") == [0, 2, 4, 6]
    assert (len(two.started), two.watching.notes) == (2, [])


def test_another_rule_is_one_more_function(pool_of: Callable[..., PoolOfActors]) -> None:
    """Such as one that replaces a straggler: who is at a chunk while all others are idle."""
    two, taken = pool_of(2), list[str]()
    membership = two.pool.membership

    def straggles(member: Member, snapshot: PoolSnapshot) -> WorkerLossReason | None:
        others = [other for other in membership.members if other is not member]
        is_last = bool(others) and all(other.task is None for other in others)
        is_at_work = member.task is not None and member.task.work.doing == "doubling"
        return WorkerLossReason(f"{member.actor.name} straggles") if is_last and is_at_work else None

    membership.worker_loss_rules = (*membership.worker_loss_rules, straggles)

    def call(actor: Actor, chunk: Any) -> Any:
        taken.append(actor.name)
        return actor.handle.hold.remote() if len(taken) == 1 else double(actor, chunk)

    assert two.pool.work(range(6), 1, call, "doubling") == [0, 2, 4, 6, 8, 10]
    ((_, said),) = two.watching.notes
    assert said == "rollout-0 straggles; it is replaced (1 of 2 since the last step)"
    assert two.reissued == [1]
