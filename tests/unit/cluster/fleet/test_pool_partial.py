"""A pool whose workers hand back what they have: deaths, versions, and hosts that are draining."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import ray

from plumbob.cluster.calls import Actor, Call, fetched, result_of, wait_until
from plumbob.cluster.failures import RolloutsLost
from plumbob.cluster.worker_groups import SamplerGroup, ScorerHere
from plumbob.models.adapter import Adapter
from plumbob.reward.scorer import ScoreRequest, Unrewarded
from plumbob.rollout.rollout_heads import refer
from plumbob.rollout.rollout_records import Rollout, RowLocation, SampleRequest
from tests.support.partial_worker import PartialWorker
from tests.support.pool_of_actors import TIMEOUT_S, PoolOfActors

MANY_BYTES = 1 << 20
"""Of an object that Ray keeps in its store, not beside its owner alone."""

pytestmark = pytest.mark.cluster


def requests(num: int) -> list[SampleRequest]:
    return [SampleRequest(f"p{n}", f"g{n}", 0, n, "", np.array([3], np.int32)) for n in range(num)]


def group_of(pool_of: PoolOfActors) -> SamplerGroup:
    return SamplerGroup(pool_of.pool, 2, lambda: None)


def test_what_was_sampled_before_a_worker_died_is_kept(pool_of: Callable[..., PoolOfActors]) -> None:
    # Three slices a response, of 2, 2 and 1 tokens. The first worker dies in its second, which holds both responses.
    one = pool_of(1, kind=PartialWorker, dies_in={"rollout-0": 2})
    found = group_of(one).sample(requests(2))
    assert [rollout.request.group_id for rollout in found] == ["g0", "g1"]
    assert [rollout.token_ids.tolist() for rollout in found] == [[0, 0, 1, 1, 1]] * 2
    assert [rollout.logprobs.tolist() for rollout in found] == [[0, 0, -1, -1, -1]] * 2
    assert [rollout.finish_reason for rollout in found] == ["length"] * 2
    # Both were given to another once; each counts as one response of the worker that finished it.
    assert one.reissued == [2]
    assert [(row.worker, row.num_done) for row in one.pool.status()] == [("rollout-1", 2)]


def test_a_version_that_is_published_meanwhile_continues_what_is_begun(pool_of: Callable[..., PoolOfActors]) -> None:
    one = pool_of(1, kind=PartialWorker, holds_in={"rollout-0": 2})
    group = group_of(one)
    group.load(Adapter(6, {}, {}))
    found: list[Rollout] = []
    sampling = threading.Thread(target=lambda: found.extend(group.sample(requests(1))), daemon=True)
    sampling.start()
    handle = one.started[0].actor.handle
    assert wait_until(lambda: ray.get(handle.num_calls.remote(), timeout=TIMEOUT_S) == 2, TIMEOUT_S)
    group.load(Adapter(7, {}, {}))
    ray.get(handle.release.remote(), timeout=TIMEOUT_S)
    sampling.join(TIMEOUT_S)
    # The slice that was under way is the old version's, the last is the new one's.
    assert [rollout.versions.tolist() for rollout in found] == [[6, 6, 6, 6, 7]]


def test_workers_on_a_draining_host_end_their_slice_and_stop(
    pool_of: Callable[..., PoolOfActors],
) -> None:
    two = pool_of(2, kind=PartialWorker, holds_in={"rollout-0": 1})
    found: list[Rollout] = []
    sampling = threading.Thread(target=lambda: found.extend(group_of(two).sample(requests(4))), daemon=True)
    sampling.start()
    assert wait_until(lambda: len(two.started) == 2, TIMEOUT_S)
    draining = two.started[0].actor.handle
    assert wait_until(lambda: ray.get(draining.num_calls.remote(), timeout=TIMEOUT_S) == 1, TIMEOUT_S)
    two.draining.add("rollout-0")
    # Its replacement does not wait for it to go.
    assert wait_until(lambda: len(two.started) == 3, TIMEOUT_S)
    assert [row.state for row in two.pool.status() if row.worker == "rollout-0"] == ["draining"]
    ray.get(draining.release.remote(), timeout=TIMEOUT_S)
    sampling.join(TIMEOUT_S)
    tokens = [rollout.token_ids.tolist() for rollout in found]
    # One slice of two responses is the draining worker's, the other two responses it never saw; nothing is lost.
    assert tokens[:2] == [[0, 0, *tokens[0][2:]], [0, 0, *tokens[1][2:]]]
    assert all(0 not in row for row in (tokens[0][2:], tokens[1][2:], *tokens[2:]))
    assert [len(row) for row in tokens] == [5] * 4
    assert {row.worker for row in two.pool.status()} == {"rollout-1", "rollout-2"}
    assert (two.reissued, two.watching.notes) == ([], [])


def test_without_slices_a_chunk_is_ended_before_a_draining_worker_stops(pool_of: Callable[..., PoolOfActors]) -> None:
    one = pool_of(1)

    def call(actor: Actor, chunk: Any) -> Any:
        one.draining.add("rollout-0")
        return actor.handle.double.remote(list(chunk))

    assert one.pool.work(range(4), 2, call, "doubling") == [0, 2, 4, 6]
    assert one.started[0].num_items == 2 and one.started[1].num_items == 2
    assert (one.reissued, one.watching.notes) == ([], [])


class Owner:
    """Whoever has an object, and takes it with it."""

    def put(self) -> list[Any]:
        return [ray.put(bytes(MANY_BYTES))]


def is_lost(ref: Any) -> bool:
    try:
        fetched([ref], TIMEOUT_S)
    except RolloutsLost as error:
        assert str(error).startswith("responses were lost with the host that had them")
        return True
    return False


def lost_object() -> Any:
    owner = ray.remote(num_cpus=0)(Owner).remote()
    (lost,) = ray.get(owner.put.remote(), timeout=TIMEOUT_S)
    ray.kill(owner)
    assert wait_until(lambda: is_lost(lost), TIMEOUT_S)
    return lost


def test_a_result_that_went_with_its_host_is_worked_for_again(pool_of: Callable[..., PoolOfActors]) -> None:
    """Its worker had ended the call before: what is lost is its own result, not what it was given."""
    one, lost = pool_of(1), [lost_object()]

    def call(actor: Actor, chunk: Any) -> Any:
        return lost.pop() if lost else actor.handle.double.remote(list(chunk))

    assert one.pool.work(range(4), 2, call, "doubling") == [0, 2, 4, 6]
    assert one.reissued == [2]
    assert [(row.worker, row.num_done) for row in one.pool.status()] == [("rollout-1", 4)]


def test_responses_that_do_not_come_are_waited_for_within_the_bound(pool_of: Callable[..., PoolOfActors]) -> None:
    one = pool_of(1)
    one.pool.work([1], 1, lambda actor, chunk: actor.handle.double.remote(list(chunk)), "doubling")
    never = one.started[0].actor.handle.hold.remote()
    late = r"^the driver: still fetching responses after 1 s \(cluster\.call_timeout_s\)$"
    with pytest.raises(RolloutsLost, match=late):
        ScorerHere(Unrewarded(), 1.0).score([ScoreRequest("p", "", location=RowLocation(never, 0))])


def test_rollouts_stay_where_they_were_sampled_and_are_found_there(pool_of: Callable[..., PoolOfActors]) -> None:
    """Also those that one worker began, of which the driver has what it needs to hand them on."""
    one = pool_of(1, kind=PartialWorker, dies_in={"rollout-0": 2})
    heads = group_of(one).sample_apart(requests(3))
    assert [(head.request.group_id, head.finish_reason, head.num_tokens) for head in heads] == [
        (f"g{number}", "length", 5) for number in range(3)
    ]
    refs = refer(heads)
    found = refs.of(fetched(refs.parts, TIMEOUT_S))
    assert [rollout.request.group_id for rollout in found] == ["g0", "g1", "g2"]
    assert found[0].token_ids.tolist() == [0, 0, 1, 1, 1]
    assert [head.token_digest for head in heads] == [rollout.token_digest for rollout in found]
    # Their host is gone: whoever asks for them, here or on a worker, is told so.
    worker, lost = one.started[-1].actor, lost_object()
    with pytest.raises(RolloutsLost, match=f"{worker.name}, scoring: responses were lost with the host"):
        result_of(Call(worker, worker.handle.sample.remote(lost)), "scoring")
