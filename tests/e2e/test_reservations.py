"""Workers that are placed one after the other end where the plan for all of them has them."""

from collections import Counter
from collections.abc import Iterator

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.exceptions import RaySystemError

from plumbob.cluster.connection import joined_briefly
from plumbob.cluster.fleet.reservations import Reservation, Reservations
from plumbob.cluster.placement import plan
from plumbob.cluster.resources import ResourceNeed, WorkerRole
from tests.support.small_run import Stages


@pytest.fixture
def large_and_small(stage: Stages) -> Iterator[tuple[str, str]]:
    """Ids of two nodes, of 8 and of 3 CPUs."""
    stage.close()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 8, "include_dashboard": False})
    small = cluster.add_node(num_cpus=3)
    ray.init(cluster.address, log_to_driver=False, logging_level="error")
    yield cluster.head_node.node_id, small.node_id
    ray.shutdown()
    cluster.shutdown()


def need(role: WorkerRole, count: int, num_cpus: float) -> ResourceNeed:
    return ResourceNeed(role, f"{role}.num_workers", count, num_cpus, 0.0, 0.0, spread=role != "learner")


NEEDS = (need("learner", 1, 2.0), need("rollout", 2, 4.0), need("scorer", 1, 1.0))


def reserve_in_turn(reservations: Reservations) -> dict[str, list[Reservation | None]]:
    """By role, in the order in which a run's threads may ask: the small ones first."""
    learner, rollout, scorer = NEEDS
    found: dict[str, list[Reservation | None]] = {"scorer": [reservations.reserve_one(scorer, {}, ())]}
    found["learner"] = [*reservations.reserve_all(learner)]
    found["rollout"] = []
    placed: Counter[str] = Counter()
    for _ in range(rollout.count):
        reservation = reservations.reserve_one(rollout, placed, ())
        placed.update([] if reservation is None else [reservation.host.node_id])
        found["rollout"].append(reservation)
    return found


def test_nothing_starts_a_ray_by_itself_once_it_has_been_left(stage: Stages) -> None:
    """Such as a thread that a failure left behind."""
    stage.close()
    with joined_briefly(stage.address):
        assert ray.is_initialized()
    with pytest.raises(RaySystemError):
        ray.put(1)
    assert not ray.is_initialized()


def test_small_workers_leave_the_host_that_a_large_one_needs(large_and_small: tuple[str, str]) -> None:
    large, small = large_and_small
    # 2 x 4 CPUs fill the large node, and 2 + 1 the small one.
    reservations = Reservations()
    reservations.use_plan(plan(NEEDS, reservations.free_plus_reserved()))
    in_turn = reserve_in_turn(reservations)
    found = {role: [each and each.host.node_id for each in reserved] for role, reserved in in_turn.items()}
    assert found == {"learner": [small], "rollout": [large, large], "scorer": [small]}
