"""A run whose workers are on three hosts gives what it gives on one."""

import math
import subprocess
from collections import defaultdict

import pytest

from cluster.health import wait_until
from tests.multihost.hosts import PLUMBOB, Host, Hosts
from tests.multihost.namespaces import Command
from tests.small_run import Left, settings

pytestmark = pytest.mark.cluster

RUN_S = 300.0

ONE_HOST: dict[str, object] = {"learner.num_cpus": 0.25, "rollout.num_cpus": 0.25, "reward.num_cpus": 0.25}
THREE_HOSTS: dict[str, object] = {
    # Of one CPU each, so that the learners and the rollout worker have one each.
    **{"learner.num_workers": 2, "learner.num_cpus": 0.75, "rollout.num_cpus": 0.75, "reward.num_cpus": 0.25},
    # Of 4 answers 2 are a rank's: another cut than the one rank's own.
    "learner.micro_batch_size": 1,
}


def start(host: Host, hosts: Hosts, name: str, *groups: dict[str, object]) -> Command:
    """`plumbob run ppo` on a host."""
    command = [PLUMBOB, "run", "ppo", *settings({"storage.path": hosts.shared / "runs", "name": name}, *groups)]
    return host.popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def hosts_of_workers(hosts: Hosts, run: Command) -> dict[str, set[str]]:
    """Watch a run to its end. Returns kind of worker -> names of the hosts where there was one."""
    seen: dict[str, set[str]] = defaultdict(set)

    def ended() -> bool:
        for host in hosts.all:
            for kind in ("LearnerWorker", "RolloutWorker", "ScorerWorker"):
                if host.pids(f"ray::{kind}"):
                    seen[kind].add(host.name)
        return run.poll() is not None

    wait_until(ended, RUN_S)
    return seen


def check_ended_well(run: Command) -> None:
    try:
        said = run.communicate(timeout=RUN_S)[0]
    except subprocess.TimeoutExpired:
        run.kill()
        said = run.communicate()[0]
    assert run.returncode == 0, said


def test_learners_on_two_hosts_learn_what_one_learns(hosts: Hosts, inputs: dict[str, object]) -> None:
    one = start(hosts.spare, hosts, "one", inputs, ONE_HOST)
    three = start(hosts.head, hosts, "three", inputs, THREE_HOSTS, {"cluster.address": hosts.ray_address})
    seen = hosts_of_workers(hosts, three)
    for run in (one, three):
        check_ended_well(run)
    assert {kind: len(names) for kind, names in seen.items()} == {
        "LearnerWorker": 2,
        "RolloutWorker": 1,
        "ScorerWorker": 1,
    }
    assert seen["LearnerWorker"].isdisjoint(seen["RolloutWorker"])
    ours, theirs = (Left(hosts.shared / "runs" / name).untimed for name in ("three", "one"))
    assert len(ours) == len(theirs) == 2
    assert ours[0]["metrics"] == pytest.approx(theirs[0]["metrics"], rel=1e-3, abs=1e-4)
    # What the second step samples rests on the rounding of the first; that the policy reached the sampler does not.
    assert ours[1]["metrics"]["sampler_gap_max"] < 1e-4
    assert all(math.isfinite(value) for value in ours[1]["metrics"].values())
