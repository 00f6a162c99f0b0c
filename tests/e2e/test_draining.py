"""Hosts that are draining, on a Ray of three nodes, as people or Ray's own notice say; and one that joins it."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster as RayCluster
from ray.core.generated.autoscaler_pb2 import DrainNodeReason

from plumbob.cluster.calls import wait_until
from plumbob.cluster.fleet.pool import Pool
from plumbob.cluster.nodes import nodes_on
from plumbob.cluster.resources import ResourceNeed
from plumbob.cluster.session import Session
from plumbob.cluster.worker_groups import SamplerGroup
from plumbob.configs.settings.workers import ClusterSettings
from plumbob.driver.run_control import RunControl, controlled_run
from plumbob.rollout.rollout_records import SampleRequest
from tests.support.partial_worker import StartedPartialWorker
from tests.support.recording_listener import Watching
from tests.support.small_run import Stages

pytestmark = pytest.mark.slow

BOUND_S = 120.0
NEED = ResourceNeed("rollout", "rollout.num_workers", 3, 0.25, 0.0, 0.0, spread=True)


@pytest.fixture
def three(stage: Stages) -> Iterator[RayCluster]:
    """A head and two others, each with an address of its own."""
    stage.close()
    cluster = RayCluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for last in (2, 3):
        cluster.add_node(num_cpus=1, node_ip_address=f"127.0.0.{last}")
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


@contextmanager
def sampling_on(
    cluster: RayCluster, run: str, folder: Path, watching: Watching, need: ResourceNeed
) -> Iterator[tuple[RunControl, Pool, Callable[[], set[str]]]]:
    """Workers of `run`, and what samples as many responses as they are and says on which hosts they were made."""
    with (
        Session(ClusterSettings(address=cluster.address), folder, watching) as session,
        controlled_run(session, run, (replace(need, count=1),), folder, watching) as control,
    ):
        pool = session._pools.make_pool(need, 1, StartedPartialWorker)
        samplers = SamplerGroup(pool, 1, session.begin_work)
        requests = [SampleRequest(f"p{n}", f"g{n}", 0, n, "", np.array([3], np.int32)) for n in range(need.count)]

        def at_work() -> set[str]:
            assert [len(rollout.token_ids) for rollout in samplers.sample(requests)] == [5] * need.count
            return {row.host for row in pool.status() if row.num_done}

        yield control, pool, at_work
        pool.close()


def test_workers_leave_hosts_that_are_draining(three: RayCluster, tmp_path: Path) -> None:
    watching = Watching()
    with sampling_on(three, "drained", tmp_path, watching, NEED) as (control, pool, at_work):
        head = three.head_node.node_ip_address
        assert wait_until(lambda: at_work() == {head, "127.0.0.2", "127.0.0.3"}, BOUND_S)
        asked = [sys.executable, "-m", "plumbob.console.cli", "scale", "drained", "--leave", "127.0.0.2"]
        said = subprocess.run([*asked, "--address", three.address], capture_output=True, text=True, timeout=BOUND_S)
        assert said.stdout.startswith("127.0.0.2: its rollout workers and scorers finish their work"), said.stderr
        assert wait_until(lambda: at_work() == {head, "127.0.0.3"}, BOUND_S)

        # Ray's own notice; the host goes before its workers have ended what they are at.
        last = next(row.worker for row in pool.status() if row.host == "127.0.0.3")
        (tmp_path / f"{last}.hold").touch()
        sampling = ThreadPoolExecutor(1).submit(at_work)
        assert wait_until(lambda: state_of(pool, last) == "sampling", BOUND_S)
        drain(three, *nodes_on("127.0.0.3"))
        assert wait_until(lambda: state_of(pool, last) == "draining", BOUND_S)
        three.remove_node(next(node for node in three.worker_nodes if node.node_ip_address == "127.0.0.3"), False)
        sampling.result(BOUND_S)
        assert at_work() == {head} and control.budget.total == 0
        # The only one that is left; 127.0.0.2 is there and draining.
        asked[-1] = head
        refused = subprocess.run([*asked, "--address", three.address], capture_output=True, text=True, timeout=BOUND_S)
        assert refused.returncode == 2 and f"{head}: on the hosts that stay there would be no room" in refused.stderr
    told = [message for _, message in watching.notes]
    rule = "workers there finish their work, others start elsewhere"
    assert told[:2] == [f"draining 127.0.0.2: {rule}", f"draining 127.0.0.3: {rule}"]
    assert told[2:] and all(message.endswith("; its host was draining") for message in told[2:])


def test_a_worker_there_was_no_room_for_starts_on_a_host_that_joins(three: RayCluster, tmp_path: Path) -> None:
    watching = Watching()
    # Of a whole CPU each: the fourth finds none.
    need = replace(NEED, count=4, num_cpus=1.0)
    with sampling_on(three, "growing", tmp_path, watching, need) as (control, pool, at_work):
        first = {three.head_node.node_ip_address, "127.0.0.2", "127.0.0.3"}
        short = ("cluster", "no host has capacity for another rollout worker; running with 3")
        assert wait_until(lambda: at_work() == first and short in watching.notes, BOUND_S)
        three.add_node(num_cpus=1, node_ip_address="127.0.0.4")
        assert wait_until(lambda: at_work() == first | {"127.0.0.4"}, BOUND_S)
        assert [row.host for row in pool.status()][3:] == ["127.0.0.4"]
        assert watching.notes == [short] and control.budget.total == 0


def state_of(pool: Pool, worker: str) -> str:
    return str(next(row.state for row in pool.status() if row.worker == worker))


def drain(cluster: RayCluster, node_id: str) -> None:
    """As Ray's autoscaler does when a spot machine is about to go."""
    deadline_ms = int((time.time() + 10 * BOUND_S) * 1000)
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = GcsClient(address=cluster.address).drain_node(node_id, reason, "spot", deadline_ms)
    assert accepted, why
