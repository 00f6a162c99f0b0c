"""On which addresses the processes of a run listen, on a machine that has one on a network beside 127.0.0.1."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from plumbob.cluster.calls import wait_until
from tests.multihost.hosts import BOOT_S, PLUMBOB, PYTHON, Hosts, SimulatedHost, missing
from tests.multihost.inputs import write_inputs
from tests.support.host_requirements import cannot
from tests.support.listening_sockets import ListeningSocket, listening
from tests.support.small_run import settings

RUN_S = 400.0

EVERY_SORT = {
    **{"learner.num_workers": 2, "learner.num_cpus": 0.25, "learner.micro_batch_size": 1, "learner.num_threads": 1},
    **{"rollout.engine.kind": "vllm", "rollout.engine.kv_cache_gib": 0.05, "rollout.engine.max_num_seqs": 8},
    **{"rollout.num_cpus": 0.25, "rollout.num_threads": 1, "reward.num_cpus": 0.25, "reward.num_threads": 1},
    **{"online.num_steps": 100_000, "cluster.num_cpus": 2},
}
"""Two learners, a vLLM and a scorer, for as long as they are looked at."""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Hosts]:
    """One that has no Ray."""
    lacking = missing()
    if lacking:
        cannot(lacking)
    (tmp_path / "shared").mkdir()
    with Hosts(0, tmp_path / "shared", tmp_path) as hosts:
        yield hosts


def test_a_local_run_listens_on_the_loopback_interface_alone(machine: Hosts) -> None:
    host, storage = machine.spare, machine.shared / "runs"
    # The user's own choices, for runs on a cluster, open nothing of a local one.
    chosen = {"GLOO_SOCKET_IFNAME": "eth0", "VLLM_HOST_IP": host.address}
    given = settings(write_inputs(machine.shared), EVERY_SORT, {"storage.path": storage, "name": "closed"})
    run = host.popen(
        [PLUMBOB, "run", "ppo", *given],
        env=host.environment() | chosen,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        seen = _seen_until_it_learns(host, run, storage / "closed/metrics.jsonl")
        told = host.run([PLUMBOB, "status", str(storage / "closed"), "--json"], RUN_S)
    finally:
        run.terminate()
        printed = run.communicate(timeout=RUN_S)[0]
    assert run.returncode == 75, printed
    assert {each.address for each in seen} == {"127.0.0.1"}, sorted(seen)
    # Of each sort something listens: Ray's own servers, the driver, and each rank's gloo beside its worker.
    workers = {"ray::LearnerWorker", "ray::RolloutWorker", "ray::ScorerWorker"}
    assert {"gcs_server", "raylet"} | workers <= {Path(each.name).name.partition(".")[0] for each in seen}
    assert told.returncode == 0 and json.loads(told.stdout)["running"], told.stderr


def _seen_until_it_learns(host: SimulatedHost, run: subprocess.Popen[str], metrics: Path) -> set[ListeningSocket]:
    """All that listened at any moment until the first step was done, as what is open while it starts is open too."""
    seen: set[ListeningSocket] = set()

    def has_learnt() -> bool:
        seen.update(listening(host.processes()))
        return run.poll() is not None or (metrics.exists() and bool(metrics.read_text()))

    assert wait_until(has_learnt, RUN_S), sorted(seen)
    return seen


def test_of_a_cluster_ray_itself_listens_as_the_documents_say(tmp_path: Path) -> None:
    """docs/cluster.md has the table, and that nothing binds Ray to one address: this fails with a release that does so.

    Of the host's addresses 127.0.0.1 and the one by which it was started are two; `::` and `0.0.0.0` are all.
    """
    lacking = missing()
    if lacking:
        cannot(lacking)
    (tmp_path / "shared").mkdir()
    with Hosts(1, tmp_path / "shared", tmp_path) as hosts:
        hosts.start_ray(num_cpus=1, with_dashboard=True)
        work = "import ray; ray.init('auto'); ray.get(ray.remote(lambda: 1).remote()); input()"
        driver = hosts.head.popen([str(PYTHON), "-c", work], stdin=subprocess.PIPE)
        try:
            doors: set[ListeningSocket] = set()

            def all_listen() -> bool:
                doors.clear()
                doors.update(listening(hosts.head.processes()))
                are_there = {"gcs_server", "raylet", "ray::IDLE"} <= {title(each) for each in doors}
                return are_there and {6379, 8265, 10001, 52365} <= {each.port for each in doors}

            assert wait_until(all_listen, BOOT_S), sorted(doors)
        finally:
            driver.kill()
            driver.communicate()
    own = hosts.head.address
    of_port = {port: {each.address for each in doors if each.port == port} for port in (6379, 8265, 10001, 52365)}
    both = {"127.0.0.1", own}
    assert of_port == {6379: {"::"}, 8265: {own}, 10001: both, 52365: both}
    of_process = {name: {each.address for each in doors if title(each) == name} for name in map(title, doors)}
    assert of_process["raylet"] == of_process["ray::IDLE"] == {"::"}
    # The agents: what asks for the token by HTTP, what raylet and workers say, and the metrics.
    assert of_process["ray::DashboardAgent"] == {*both, "::", "0.0.0.0"}
    assert of_process["ray::RuntimeEnvAgent"] == {own}


def title(door: ListeningSocket) -> str:
    return Path(door.name).name.partition(" ")[0]
