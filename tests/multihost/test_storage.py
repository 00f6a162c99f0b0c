"""What only one host can see is no place for a run: it is refused before anything is trained."""

from pathlib import Path

from tests.multihost.hosts import PLUMBOB, Hosts, SimulatedHost
from tests.support.small_run import settings

RUN_S = 300.0
START_S = 60.0

SPREAD: dict[str, object] = {
    # Hosts of one CPU each: no two of these have room on the same.
    **{"learner.num_cpus": 1, "rollout.num_cpus": 1, "reward.num_cpus": 1},
    "cluster.address": "auto",
}


def refused(host: SimulatedHost, *groups: dict[str, object]) -> str:
    """What `plumbob run ppo` says on that host, which ends with status 2."""
    done = host.run([PLUMBOB, "run", "ppo", *settings(*groups, SPREAD)], RUN_S)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr


def has(host: SimulatedHost, path: Path) -> bool:
    return host.run(["test", "-e", str(path)], START_S).returncode == 0


def test_storage_that_only_the_drivers_host_has(hosts: Hosts, inputs: dict[str, object]) -> None:
    """Also where other hosts have a folder of their own under that path."""
    own = Path("/tmp/of-one-host")
    hosts.all[1].run(["mkdir", "-p", str(own / "private" / "logs")], START_S)
    said = refused(hosts.head, inputs, {"storage.path": own, "name": "private"})
    assert f"cannot use {own}/private/logs as the driver does" in said
    assert "set storage.path to a folder on storage that every host can read and write" in said
    assert any(f" on {host.address} cannot use" in said for host in hosts.all[1:])
    assert not has(hosts.head, own) and not has(hosts.all[2], own)
    assert hosts.all[1].run(["find", str(own), "-type", "f"], START_S).stdout == ""


def test_a_model_that_only_the_drivers_host_has(hosts: Hosts, inputs: dict[str, object]) -> None:
    model = Path("/tmp/model-of-one-host")
    hosts.head.run(["cp", "-r", str(inputs["policy.model"]), str(model)], START_S)
    storage = hosts.shared / "runs"
    said = refused(hosts.head, inputs, {"policy.model": model, "storage.path": storage, "name": "lacking"})
    assert f"cannot read the model {model}, which the driver's host has: [Errno 2] No such file or directory" in said
    assert not (storage / "lacking").exists()
