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
from plumbob.cluster.resources import Amount, Host, Need
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


GHOST = Host("10.9.9.9", "f" * 56, Amount(8.0, 0.0, 64.0))
"""Roomier than the real one, so that it is chosen first; Ray can place nothing there."""

LEARNERS = Need("learner", "learner.num_workers", 2, 0.25, 0.0, 0.0, spread=False)


@pytest.fixture
def haunted(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    with monkeypatch.context() as patched:
        patched.setattr(reservations, "hosts", lambda free: tuple(chain(hosts(free), [GHOST])))
        yield patched


def test_a_host_that_does_not_response_is_left_alone_for_a_while(haunted: pytest.MonkeyPatch) -> None:
    seating = Reservations()
    haunted.setattr(reservations, "ONE_PLACED_S", 0.2)
    assert seating.take_one(NEED, {}, ()) is None
    haunted.setattr(reservations, "ONE_PLACED_S", 60.0)
    seat = seating.take_one(NEED, {}, ())
    assert seat is not None and seat.host.address != GHOST.address
    assert len(seating._held) == 1
    ray.util.remove_placement_group(seat.group)


def test_learners_leave_a_host_alone_that_does_not_response(haunted: pytest.MonkeyPatch) -> None:
    seating = Reservations()
    haunted.setattr(reservations, "PLACED_S", 0.2)
    assert seating.take_all(LEARNERS) == []
    haunted.setattr(reservations, "PLACED_S", 60.0)
    assert hosts_of(seating) == here()


@pytest.mark.usefixtures("haunted")
def test_learners_are_seated_on_hosts_that_stay() -> None:
    seating = Reservations()
    seating.follow(Plan((LEARNERS,), (GHOST,), ((GHOST, GHOST),)))
    seating.leaving = frozenset({GHOST.node_id})
    assert hosts_of(seating) == here()


def test_learners_are_seated_on_hosts_that_will_be_taken_away_if_they_must() -> None:
    seating = Reservations()
    seating.leaving = frozenset(living_nodes())
    assert seating.take_all(LEARNERS) == []
    assert hosts_of(seating, anywhere=True) == here()


def here() -> set[str]:
    return {node["NodeManagerAddress"] for node in ray.nodes()}


def hosts_of(seating: Reservations, anywhere: bool = False) -> set[str]:
    """Where the learners come to be seated; their seats are given up."""
    taken: list[Reservation] = []

    def is_seated() -> bool:  # What the test before held is free after a moment.
        taken.extend(seating.take_all(LEARNERS, anywhere))
        return bool(taken)

    assert wait_until(is_seated, TIMEOUT_S)
    ray.util.remove_placement_group(taken[0].group)
    return {seat.host.address for seat in taken}
