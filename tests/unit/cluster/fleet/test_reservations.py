"""The hosts of a real Ray."""

from collections.abc import Iterator
from itertools import chain

import pytest
import ray
from ray.autoscaler.v2.sdk import get_cluster_status

from plumbob.cluster.calls import wait_until
from plumbob.cluster.fleet import reservations
from plumbob.cluster.fleet.reservations import Reservation, Reservations
from plumbob.cluster.nodes import hosts, living_nodes, nodes_on
from plumbob.cluster.placement import Plan
from plumbob.cluster.resources import Host, ResourceAmount, ResourceNeed
from plumbob.core.errors import UserError
from tests.support.pool_of_actors import NEED, TIMEOUT_S
from tests.support.small_fleet import LEARNERS as LEARNER_SETTINGS
from tests.support.small_fleet import SmallFleet, work

pytestmark = pytest.mark.usefixtures("one_cpu")


def test_which_hosts_can_be_left() -> None:
    (node,) = ray.nodes()
    address, name = node["NodeManagerAddress"], node["NodeManagerHostname"]
    with pytest.raises(UserError) as unknown:
        nodes_on("10.9.9.9")
    assert str(unknown.value) == f"10.9.9.9: no host of this cluster; it has {address} ({name})"
    for host in (address, name):
        with pytest.raises(
            UserError, match=rf"^{host}: it is the only host of this cluster; `plumbob stop` ends a run"
        ):
            nodes_on(host)


GHOST = Host("10.9.9.9", "f" * 56, ResourceAmount(8.0, 0.0, 64.0))
"""Roomier than the real one, so that it is chosen first; Ray can place nothing there."""

LEARNERS = ResourceNeed("learner", "learner.num_workers", 2, 0.25, 0.0, 0.0, spread=False)


@pytest.fixture
def haunted(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    with monkeypatch.context() as patched:
        patched.setattr(reservations, "hosts", lambda free: tuple(chain(hosts(free), [GHOST])))
        yield patched


def test_a_host_that_does_not_answer_is_left_alone_for_a_while(haunted: pytest.MonkeyPatch) -> None:
    ours = Reservations()
    haunted.setattr(reservations, "ONE_RESERVED_S", 0.2)
    assert ours.reserve_one(NEED, {}, ()) is None
    haunted.setattr(reservations, "ONE_RESERVED_S", 60.0)
    reserved = ours.reserve_one(NEED, {}, ())
    assert reserved is not None and reserved.host.address != GHOST.address
    assert len(ours._reserved) == 1
    ray.util.remove_placement_group(reserved.group)


def test_learners_leave_a_host_alone_that_does_not_answer(haunted: pytest.MonkeyPatch) -> None:
    ours = Reservations()
    haunted.setattr(reservations, "RESERVED_S", 0.2)
    assert ours.reserve_all(LEARNERS) == []
    haunted.setattr(reservations, "RESERVED_S", 60.0)
    assert hosts_of(ours) == here()


@pytest.mark.usefixtures("haunted")
def test_learners_are_placed_on_hosts_that_stay() -> None:
    ours = Reservations()
    ours.use_plan(Plan((LEARNERS,), (GHOST,), ((GHOST, GHOST),)))
    ours.draining = frozenset({GHOST.node_id})
    assert hosts_of(ours) == here()


def test_learners_are_placed_on_draining_hosts_if_they_must() -> None:
    ours = Reservations()
    ours.draining = frozenset(living_nodes())
    assert ours.reserve_all(LEARNERS) == []
    assert hosts_of(ours, anywhere=True) == here()


def here() -> set[str]:
    return {node["NodeManagerAddress"] for node in ray.nodes()}


def hosts_of(ours: Reservations, anywhere: bool = False) -> set[str]:
    """Where the learners come to be placed; what they reserved is released."""
    taken: list[Reservation] = []

    def are_placed() -> bool:  # What the test before held is free after a moment.
        taken.extend(ours.reserve_all(LEARNERS, anywhere))
        return bool(taken)

    assert wait_until(are_placed, TIMEOUT_S)
    ray.util.remove_placement_group(taken[0].group)
    return {each.host.address for each in taken}


@pytest.mark.cluster
def test_rays_autoscaler_is_told_of_workers_that_find_no_capacity(
    small_fleet: SmallFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on the head of a cluster that has an autoscaler, which reads what Ray's own record of the cluster says here.
    monkeypatch.setattr("ray.autoscaler.v2.utils.cached_is_autoscaler_v2", True)

    def told() -> list[tuple[dict[str, float], int]]:
        status = get_cluster_status(ray.get_runtime_context().gcs_address)
        demands = status.resource_demands.cluster_constraint_demand
        return [(bundle.bundle, bundle.count) for demand in demands for bundle in demand.bundles_by_count]

    small_fleet.ranks.get_or_start(LEARNER_SETTINGS)
    pool = small_fleet.pool()  # 4 of a quarter of a CPU: 2 of them find no capacity beside the learners.
    assert len(work(pool, 4)) == 4 and wait_until(lambda: len(pool.members) == 2, TIMEOUT_S)
    assert told() == [({"CPU": 0.25}, 6)]
    pool.target_size = 2
    assert len(work(pool, 4)) == 4
    assert told() == []
    pool.target_size = 3
    assert len(work(pool, 4)) == 4
    assert told() == [({"CPU": 0.25}, 5)]
    pool.close()
    assert told() == []
