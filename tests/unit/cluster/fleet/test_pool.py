"""A pool of real Ray actors: order, slow workers, coming and going."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import ray
import torch

from plumbob.cluster.calls import Actor, wait_until
from plumbob.cluster.fleet.work_queue import Preparation
from plumbob.cluster.worker_groups import SamplerGroup
from plumbob.core.errors import RunFailed, UserError
from plumbob.models.adapter import Adapter
from plumbob.reward.scorer import ScoreError
from tests.support.pool_of_actors import TIMEOUT_S, PoolOfActors
from tests.support.ray_publish_prover import Prover

pytestmark = pytest.mark.cluster


def double(actor: Actor, chunk: Any) -> Any:
    return actor.handle.double.remote(list(chunk))


def test_results_come_in_the_order_of_the_items(pool_of: Callable[..., PoolOfActors]) -> None:
    pool = pool_of(2).pool
    # 23 items in chunks of 4: the last chunk has 3.
    assert pool.work(range(23), 4, double, "doubling") == list(range(0, 46, 2))
    assert pool.work([], 4, double, "doubling") == []
    assert sum(row.num_done or 0 for row in pool.status()) == 23


def test_a_slow_worker_delays_only_its_own_chunk(pool_of: Callable[..., PoolOfActors]) -> None:
    two, taken = pool_of(2), []

    def call(actor: Actor, chunk: Any) -> Any:
        slow = two.started[0].actor
        taken.append((actor is slow, list(chunk)))
        if actor is not slow:
            if chunk[0] == 9:  # The last chunk: the other worker has come this far by itself.
                slow.handle.release.remote()
            return double(actor, chunk)
        return actor.handle.double_when_released.remote(list(chunk))

    assert two.pool.work(range(10), 1, call, "doubling") == list(range(0, 20, 2))
    assert [chunk for is_slow, chunk in taken if is_slow] == [[0]]


def said_at_work(one: PoolOfActors, end: Callable[[], None]) -> str:
    """What ends a thread that waits for the sampling of a worker that never answers, once `end` is called."""
    told: list[str] = []

    def work() -> None:
        with pytest.raises(RunFailed) as failed:
            one.pool.work([1], 1, lambda actor, chunk: actor.handle.hold.remote(), "sampling")
        told.append(str(failed.value))

    working = threading.Thread(target=work, daemon=True)
    working.start()
    assert wait_until(lambda: any(row.state == "sampling" for row in one.pool.status()), TIMEOUT_S)
    end()
    working.join(TIMEOUT_S)
    (said,) = told
    return said


def test_work_that_nobody_wants_any_more_ends(pool_of: Callable[..., PoolOfActors]) -> None:
    one = pool_of(1)
    assert "sampling abandoned: a learner was lost" in said_at_work(one, one.pool.abandon)
    # What was under way is not taken for a response of the work that follows.
    ray.get(one.started[0].actor.handle.release.remote(), timeout=TIMEOUT_S)
    assert one.pool.work(range(3), 1, double, "doubling") == [0, 2, 4] and len(one.started) == 1


def test_a_version_is_loaded_while_others_work(pool_of: Callable[..., PoolOfActors]) -> None:
    one = pool_of(1)
    order: list[str] = []

    def load(actor: Actor) -> Any:
        order.append("load")
        return actor.handle.double.remote([1])

    def call(actor: Actor, chunk: Any) -> Any:
        order.append(f"chunk {chunk[0]}")
        return actor.handle.double_when_released.remote(list(chunk)) if chunk[0] == 0 else double(actor, chunk)

    working = threading.Thread(target=one.pool.work, args=(range(2), 1, call, "doubling"), daemon=True)
    working.start()
    assert wait_until(lambda: order == ["chunk 0"], TIMEOUT_S)
    one.pool.load(Preparation(load, "loading version 1"))  # Returns, although the only worker is busy.
    ray.get(one.started[0].actor.handle.release.remote(), timeout=TIMEOUT_S)
    working.join(TIMEOUT_S)
    assert order == ["chunk 0", "load", "chunk 1"]


def test_a_pool_grows_and_shrinks_between_jobs(pool_of: Callable[..., PoolOfActors]) -> None:
    some = pool_of(1)
    some.pool.work(range(2), 1, double, "doubling")
    some.pool.target_size = 3
    some.pool.work(range(2), 1, double, "doubling")
    assert [row.worker for row in some.pool.status()] == ["rollout-0", "rollout-1", "rollout-2"]
    some.pool.target_size = 1
    some.pool.work(range(9), 1, double, "doubling")
    assert [row.worker for row in some.pool.status()] == ["rollout-0"]


def test_a_pool_that_is_closed_lets_no_thread_wait(pool_of: Callable[..., PoolOfActors]) -> None:
    one = pool_of(1)
    assert "the rollout workers were ended while they were at work" in said_at_work(one, one.pool.close)
    assert len(one.started) == 1


def test_more_than_there_is_room_for_go_on_with_those_that_fit(pool_of: Callable[..., PoolOfActors]) -> None:
    many = pool_of(6)  # Of a quarter of a CPU each, and there is one.
    assert many.pool.work(range(9), 1, double, "doubling") == list(range(0, 18, 2))
    assert len(many.pool.status()) == 4
    assert many.watching.notes == [("cluster", "no host has capacity for another rollout worker; running with 4")]


def test_what_a_worker_raises_for_a_person_comes_out_as_it_is(pool_of: Callable[..., PoolOfActors]) -> None:
    pool = pool_of(1).pool
    with pytest.raises(UserError, match="row 3"):
        pool.work([1], 1, lambda actor, chunk: actor.handle.fail.remote("user"), "checking")
    with pytest.raises(UserError, match="row 3"):
        pool.open(Preparation(lambda actor: actor.handle.fail.remote("user"), "opening"))


def test_a_worker_that_cannot_begin_where_others_could_ends_no_run(pool_of: Callable[..., PoolOfActors]) -> None:
    some = pool_of(1)

    def begin(actor: Actor) -> Any:
        return actor.handle.fail.remote("user") if actor.name == "rollout-1" else actor.handle.double.remote([])

    def call(actor: Actor, chunk: Any) -> Any:
        if actor.name == "rollout-0":
            return actor.handle.double_when_released.remote(list(chunk))
        some.started[0].actor.handle.release.remote()
        return double(actor, chunk)

    some.pool.open(Preparation(begin, "opening"))
    some.pool.target_size = 2
    assert some.pool.work(range(4), 1, call, "doubling") == [0, 2, 4, 6]
    assert [member.actor.name for member in some.started] == ["rollout-0", "rollout-1", "rollout-2"]
    ((_, said),) = some.watching.notes
    assert said.startswith("rollout-1 on ") and said.endswith("data.pairs: row 3 is empty")


@pytest.mark.parametrize("num_failures", [1, 2])
def test_an_only_worker_s_successor_may_fail_to_begin_once(
    pool_of: Callable[..., PoolOfActors], num_failures: int
) -> None:
    one = pool_of(1)

    def begin(actor: Actor) -> Any:
        fails = 1 <= int(actor.name.removeprefix("rollout-")) <= num_failures
        return actor.handle.fail.remote("user") if fails else actor.handle.double.remote([])

    def call(actor: Actor, chunk: Any) -> Any:
        return actor.handle.die.remote() if actor.name == "rollout-0" else double(actor, chunk)

    one.pool.open(Preparation(begin, "opening"))
    if num_failures == 2:
        with pytest.raises(UserError, match=r"data\.pairs: row 3 is empty"):
            one.pool.work(range(3), 1, call, "doubling")
    else:
        assert one.pool.work(range(3), 1, call, "doubling") == [0, 2, 4]
        assert [member.actor.name for member in one.started] == ["rollout-0", "rollout-1", "rollout-2"]


def test_a_worker_that_cannot_begin_before_another_has_ends_the_run(pool_of: Callable[..., PoolOfActors]) -> None:
    opening = Preparation(lambda actor: actor.handle.fail.remote("user"), "opening")
    with pytest.raises(UserError, match=r"data\.pairs: row 3 is empty"):
        pool_of(2).pool.open(opening)


def test_a_scorers_rows_are_those_of_the_whole_batch(pool_of: Callable[..., PoolOfActors]) -> None:
    # The second chunk of 4 is rows 4 to 7; its second and fourth are broken.
    numbers = [0, 1, 2, 3, 4, -1, 6, -1, 8]
    with pytest.raises(ScoreError, match=r"not finite \(row 5, 7 of the batch of 9\)") as caught:
        pool_of(1).pool.work(numbers, 4, lambda actor, chunk: actor.handle.score.remote(list(chunk)), "scoring")
    assert caught.value.rows == (5, 7)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"version_off": -1}, "rollout-0 proved 2 tensors of version 6, 2 of version 7 were sent"),
        ({"tensors_off": -1}, "rollout-0 proved 1 tensors of version 7, 2 of version 7 were sent"),
    ],
)
def test_one_worker_that_loaded_something_else_ends_the_run(
    pool_of: Callable[..., PoolOfActors], wrong: dict[str, int], message: str
) -> None:
    adapter = Adapter(7, {}, {"a": torch.zeros(1), "b": torch.zeros(1)})
    SamplerGroup(pool_of(1, kind=Prover).pool, 4, lambda: None).load(adapter)
    with pytest.raises(RunFailed, match=message):
        SamplerGroup(pool_of(1, kind=Prover, **wrong).pool, 4, lambda: None).load(adapter)
