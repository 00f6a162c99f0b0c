"""The hosts of a real Ray."""

from collections.abc import Iterator
from itertools import chain

import pytest
import ray

from plumbob.cluster.calls import wait_until
from plumbob.cluster.fleet import reservations
from plumbob.cluster.fleet.reservations import Reservation, Reservations
from plumbob.cluster.nodes import hosts, living_nodes, nodes_on
from plumbob.cluster.placement import Plan
from plumbob.cluster.resources import Host, ResourceAmount, ResourceNeed
from plumbob.core.errors import UserError
from tests.support.pool_of_actors import NEED, TIMEOUT_S

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
