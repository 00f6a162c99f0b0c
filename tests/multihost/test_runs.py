"""A run that is sent to three hosts as a job gives what it gives on one, and can be steered from outside them."""

import json
import subprocess
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from plumbob.cluster.calls import wait_until
from plumbob.cluster.launchers.job_files import CONFIG_FILE
from plumbob.trainers.learner.checkpoint_shards import file_name
from tests.multihost.hosts import PLUMBOB, Hosts, SimulatedHost
from tests.multihost.namespaces import NamespacedCommand
from tests.support.listening_sockets import ListeningSocket, listening
from tests.support.small_run import PIPELINE, ROLLOUT, TRANSFORMERS, Left, settings, tensors_of

RUN_S = 300.0
START_S = 60.0

ONE_HOST: dict[str, object] = {"learner.num_cpus": 0.25, "rollout.num_cpus": 0.25, "reward.num_cpus": 0.25}
THREE_HOSTS: dict[str, object] = {
    # Of one CPU each, which no two workers of a role share.
    **{"learner.num_workers": 2, "learner.num_cpus": 0.5, "learner.placement": "spread"},
    **{"rollout.num_workers": 2, "rollout.num_cpus": 0.5, "rollout.chunk_size": 4, "reward.num_cpus": 0.5},
    # Of 4 responses 2 are a rank's: another cut than the one rank's own.
    "learner.micro_batch_size": 1,
}
STEERED: dict[str, object] = {
    **{"online.num_steps": 100_000, "learner.num_cpus": 0.25, "reward.num_cpus": 0.25},
    **{"rollout.num_workers": 2, "rollout.num_cpus": 0.5},
}
INTERRUPTED = 130

ROUNDING = 2e-5
"""Of a trained tensor, what sums in another order may come to over two steps."""


def start(
    hosts: Hosts, command: str, name: str, *groups: dict[str, Any], kind: str = "ppo", options: Sequence[str] = ()
) -> NamespacedCommand:
    """`plumbob COMMAND KIND` on a machine that is no host of the Ray."""
    given = settings({"storage.path": hosts.shared / "runs", "name": name}, *groups)
    whole = [PLUMBOB, command, kind, *given, *options]
    return hosts.spare.popen(whole, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def hosts_of_workers(
    hosts: Hosts, run: NamespacedCommand, doors: set[ListeningSocket] | None = None
) -> dict[str, set[str]]:
    """Watch a run to its end. Returns kind of worker -> names of the hosts where there was one.

    Args:
        doors: where given, is filled with all on which learners listened.
    """
    seen: dict[str, set[str]] = defaultdict(set)

    def ended() -> bool:
        for host in hosts.all:
            for kind in ("LearnerWorker", "RolloutWorker", "ScorerWorker"):
                pids = host.pids(f"ray::{kind}")
                if pids:
                    seen[kind].add(host.name)
                if doors is not None and kind == "LearnerWorker":
                    doors.update(listening(map(psutil.Process, pids)))
        return run.poll() is not None

    wait_until(ended, RUN_S)
    return seen


def said_to_its_end(run: NamespacedCommand, status: int = 0) -> str:
    try:
        said = run.communicate(timeout=RUN_S)[0]
    except subprocess.TimeoutExpired:
        run.kill()
        said = run.communicate()[0]
    assert run.returncode == status, said
    return said


def asked(hosts: Hosts, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command about a run, from a machine that is no host of the Ray."""
    return hosts.spare.run([PLUMBOB, *arguments, "--address", f"ray://{hosts.head.address}:10001"], RUN_S)


def hosts_of_rollout_workers(hosts: Hosts, name: str) -> list[str]:
    """An address for each worker; none before the run has begun."""
    told = asked(hosts, "status", name, "--json")
    return [] if told.returncode else [row["host"] for row in json.loads(told.stdout)["workers"].get("rollout", [])]


def uploaded(head: SimulatedHost) -> list[str]:
    """Names of the files that jobs brought to the head."""
    folder = f"/tmp/ray-{head.name}/session_latest/runtime_resources/working_dir_files"
    files = ["find", folder, "-type", "f", "-not", "-name", "*.lock", "-printf", "%f\n"]
    return head.run(files, START_S).stdout.split()


def trained(left: Left) -> dict[str, NDArray[np.float32]]:
    """What the last checkpoint has of the tensors that are trained."""
    return {name: t.numpy() for name, t in tensors_of(left.last_checkpoint).items() if name.startswith("param.")}


def test_learners_on_two_hosts_learn_what_one_learns(hosts: Hosts, inputs: dict[str, object]) -> None:
    one = start(hosts, "run", "one", inputs, ONE_HOST)
    three = start(hosts, "submit", "three", inputs, THREE_HOSTS, options=("--address", hosts.dashboard))
    doors: set[ListeningSocket] = set()
    seen = hosts_of_workers(hosts, three, doors)
    said_to_its_end(one)
    # Ray's own server, of which each worker has one, is on all interfaces and asks for the token; torch's is on the
    # address that the host has in this Ray, as are gloo's. Sockets are counted, not who holds one: a learner forks.
    to_all = {(each.inode, each.pid) for each in doors if each.address == "::"}
    assert len({inode for inode, _ in to_all}) == 2, doors
    assert set(Counter(pid for _, pid in to_all).values()) == {1}, doors
    own = {each.address for each in doors} - {"::"}
    assert len(own) == 2 and own <= {host.address for host in hosts.all}, doors
    assert "job raysubmit_" in (told := said_to_its_end(three)) and "step 2" in told
    assert uploaded(hosts.head) == [CONFIG_FILE]
    assert {kind: len(names) for kind, names in seen.items()} == {
        "LearnerWorker": 2,
        "RolloutWorker": 2,
        "ScorerWorker": 1,
    }
    ours, theirs = (Left(hosts.shared / "runs" / name) for name in ("three", "one"))
    assert len(ours.untimed) == len(theirs.untimed) == 2
    for line, other in zip(ours.untimed, theirs.untimed, strict=True):
        assert line["metrics"] == pytest.approx(other["metrics"], rel=1e-3, abs=1e-4)
        assert line["metrics"]["sampler_gap_max"] < 1e-4
    # Each learner has written its share, on the host where it was.
    assert (ours.last_checkpoint / file_name(1)).exists() and not (theirs.last_checkpoint / file_name(1)).exists()
    ends = trained(ours), trained(theirs)
    assert set(ends[0]) == set(ends[1])
    for name, tensor in ends[0].items():
        np.testing.assert_allclose(tensor, ends[1][name], rtol=0, atol=ROUNDING, err_msg=name)
        if "lora_B" in name:  # It began at 0.
            assert np.abs(tensor).max() > 100 * ROUNDING, name


def test_every_stage_hands_over_to_hosts_of_the_next(hosts: Hosts) -> None:
    """Of a pipeline whose learner, sampler and scorer are on a host each."""
    apart = {f"{role}.num_cpus": 0.9 for role in ("learner", "rollout", "reward")}
    groups = (PIPELINE, ROLLOUT, TRANSFORMERS, {"learner.autocast": "false"}, apart)
    run = start(hosts, "submit", "stages", *groups, kind="toy", options=("--address", hosts.dashboard))
    seen = hosts_of_workers(hosts, run)
    said_to_its_end(run)
    assert [len(names) for names in seen.values()] == [1, 1, 1] and len(set.union(*seen.values())) == 3
    stages = Left(hosts.shared / "runs" / "stages").summary["stages"]
    assert set(stages) == {"pretrain", "pretrain-encoder", "sft", "reward", "ppo", "dpo", "eval"}
    # The sampler's host opened what the learner's host had left, and both hold the same.
    assert stages["ppo"]["max_sampler_gap"] < 1e-4


def test_a_run_is_steered_from_a_machine_that_is_no_host(hosts: Hosts, inputs: dict[str, object]) -> None:
    run = start(hosts, "submit", "steered", inputs, STEERED, options=("--address", hosts.dashboard))
    try:
        assert wait_until(lambda: len(hosts_of_rollout_workers(hosts, "steered")) == 2, RUN_S)
        refused = asked(hosts, "scale", "steered", "--leave", "10.9.9.9")
        assert refused.returncode == 2
        assert "10.9.9.9: no host of this cluster; it has 10.77.0.1 (host1), " in refused.stderr
        assert asked(hosts, "scale", "steered", "--rollout-workers", "3").returncode == 0
        all_three = {host.address for host in hosts.all}
        assert wait_until(lambda: set(hosts_of_rollout_workers(hosts, "steered")) == all_three, RUN_S)
    finally:
        stopped = asked(hosts, "stop", "steered")
    assert stopped.returncode == 0, stopped.stderr
    assert "the run was asked to stop" in said_to_its_end(run, INTERRUPTED)
