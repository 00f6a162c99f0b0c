"""A run that is sent to three hosts as a job gives what it gives on one."""

import json
import math
import subprocess
from collections import defaultdict
from collections.abc import Sequence

import pytest

from cluster.health import wait_until
from cluster.sent import CONFIG_FILE
from tests.multihost.hosts import PLUMBOB, Host, Hosts
from tests.multihost.namespaces import Command
from tests.small_run import Left, settings

pytestmark = pytest.mark.cluster

RUN_S = 300.0
START_S = 60.0

ONE_HOST: dict[str, object] = {"learner.num_cpus": 0.25, "rollout.num_cpus": 0.25, "reward.num_cpus": 0.25}
THREE_HOSTS: dict[str, object] = {
    # Of one CPU each. The rollout worker needs one to itself: whoever begins first must leave it one.
    **{"learner.num_workers": 2, "learner.num_cpus": 0.5, "learner.placement": "spread"},
    **{"rollout.num_cpus": 1, "reward.num_cpus": 0.5},
    # Of 4 answers 2 are a rank's: another cut than the one rank's own.
    "learner.micro_batch_size": 1,
}


def start(hosts: Hosts, command: str, name: str, *groups: dict[str, object], options: Sequence[str] = ()) -> Command:
    """`plumbob COMMAND ppo` on a machine that is no host of the Ray."""
    given = settings({"storage.path": hosts.shared / "runs", "name": name}, *groups)
    whole = [PLUMBOB, command, "ppo", *given, *options]
    return hosts.spare.popen(whole, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


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


def said_to_its_end(run: Command) -> str:
    try:
        said = run.communicate(timeout=RUN_S)[0]
    except subprocess.TimeoutExpired:
        run.kill()
        said = run.communicate()[0]
    assert run.returncode == 0, said
    return said


def asked(hosts: Hosts, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command about a run, from a machine that is no host of the Ray."""
    return hosts.spare.run([PLUMBOB, *arguments, "--address", f"ray://{hosts.head.address}:10001"], START_S)


def check_steering(hosts: Hosts, name: str) -> None:
    """That the run, which goes on, can be looked at and steered from there."""
    assert wait_until(lambda: asked(hosts, "status", name).returncode == 0, RUN_S)
    assert json.loads(asked(hosts, "status", name, "--json").stdout)["running"]
    refused = asked(hosts, "scale", name, "--leave", "10.9.9.9")
    assert refused.returncode == 2
    assert "10.9.9.9: no host of this cluster; it has 10.77.0.1 (host1), " in refused.stderr


def uploaded(head: Host) -> list[str]:
    """Names of the files that jobs brought to the head."""
    folder = f"/tmp/ray-{head.name}/session_latest/runtime_resources/working_dir_files"
    files = ["find", folder, "-type", "f", "-not", "-name", "*.lock", "-printf", "%f\n"]
    return head.run(files, START_S).stdout.split()


def test_learners_on_two_hosts_learn_what_one_learns(hosts: Hosts, inputs: dict[str, object]) -> None:
    one = start(hosts, "run", "one", inputs, ONE_HOST)
    three = start(hosts, "submit", "three", inputs, THREE_HOSTS, options=("--address", hosts.dashboard))
    check_steering(hosts, "three")
    seen = hosts_of_workers(hosts, three)
    said_to_its_end(one)
    assert "job raysubmit_" in (told := said_to_its_end(three)) and "step 2" in told
    assert uploaded(hosts.head) == [CONFIG_FILE]
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
