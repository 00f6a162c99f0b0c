"""The actor that a run is steered by, on a real Ray."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from cluster.control import Steering, Wanted, ask, find
from cluster.health import wait_until
from cluster.scaling import check_scale
from cluster.seats import nodes_on
from cluster.whereabouts import CLUSTER_FILE, Whereabouts, read_whereabouts
from configs.errors import UserError
from configs.roles import Cluster

pytestmark = pytest.mark.usefixtures("one_cpu")

TIMEOUT_S = 120.0
ROLLOUT = {
    "role": "rollout",
    "setting": "rollout.num_workers",
    "count": 2,
    "num_cpus": 0.5,
    "num_gpus": 0.0,
    "memory_gib": 0.0,
    "spread": True,
}


def heard(steering: Steering, is_so: Callable[[Wanted], bool]) -> bool:
    """Whether the driver comes to hear it, as it reports again and again."""
    return wait_until(lambda: is_so(steering.exchange(lambda: {"step": 7})), TIMEOUT_S)


def test_a_run_is_watched_and_steered_by_its_name() -> None:
    steering = Steering("one")
    try:
        assert steering.exchange(lambda: {"step": 6}) == Wanted()
        control = find("one")
        ask(control, "scale", 3)
        assert heard(steering, lambda wanted: wanted.num_rollout_workers == 3 and not wanted.stop)
        assert ask(control, "status") == {"step": 7}
        for nodes in ({"n1"}, {"n2", "n3"}):
            ask(control, "leave", frozenset(nodes))
        assert heard(steering, lambda wanted: wanted.leaving == {"n1", "n2", "n3"})
        ask(control, "stop")
        assert heard(steering, lambda wanted: wanted.stop)
    finally:
        steering.close()


def test_a_name_belongs_to_one_run_at_a_time() -> None:
    first = Steering("two")
    with pytest.raises(UserError, match="name=two: a run of this name is running on this cluster"):
        Steering("two")
    with pytest.raises(UserError, match=r"three: no run of this name is running on this cluster; running: .*two"):
        find("three")
    first.close()

    def is_free() -> bool:
        try:
            Steering("two").close()
        except UserError:
            return False
        return True

    assert wait_until(is_free, TIMEOUT_S)


def test_a_run_that_is_gone_does_not_answer() -> None:
    steering = Steering("four")
    control = find("four")
    ask(control, "stop")
    steering.close()
    with pytest.raises(UserError, match="the run does not answer"):
        ask(control, "status")


def test_what_a_run_may_be_scaled_to() -> None:
    assert check_scale({"rollout": ROLLOUT}, 1) == 2
    # One CPU is free: room for two of half a CPU more.
    assert check_scale({"rollout": ROLLOUT}, 4) == 2
    with pytest.raises(UserError, match=r"--rollout-workers 5: there are 2 now, and for 3 more 0\.5 CPUs are missing"):
        check_scale({"rollout": ROLLOUT}, 5)
    with pytest.raises(UserError, match="--rollout-workers 0: expected 1 or more"):
        check_scale({"rollout": ROLLOUT}, 0)
    with pytest.raises(UserError, match="this run has no rollout workers now"):
        check_scale({"rollout": None}, 2)


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


def test_a_folder_says_how_to_reach_its_run_while_it_goes_on(tmp_path: Path) -> None:
    assert read_whereabouts(tmp_path) is None
    with Whereabouts(tmp_path, "one", Cluster()):
        reach = read_whereabouts(tmp_path)
        assert reach is not None
        assert (reach.name, reach.token) == ("one", os.environ["RAY_AUTH_TOKEN"])
        assert reach.address == ray.get_runtime_context().gcs_address
        # It holds the token of a private Ray.
        assert stat.S_IMODE((tmp_path / CLUSTER_FILE).stat().st_mode) == 0o600
    assert read_whereabouts(tmp_path) is None
    with Whereabouts(tmp_path, "one", Cluster(address="auto")):
        reach = read_whereabouts(tmp_path)
        assert reach is not None and reach.token is None
