"""Measures what it costs to publish, to add a worker and to lose one: `python -m tests.multihost.benchmark`.

Publishing lasts until the last worker has proven the version (`publishing`), adding one until its first response.

Three hosts with vLLM as the sampler. The second host has the machine's core 0 to itself; the others share core 1, so
that what happens there takes nothing from a worker on the second.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

from plumbob.cluster.connection import joined_briefly
from plumbob.cluster.control_actor import answer, find
from plumbob.core.errors import UserError
from tests.multihost import publishing
from tests.multihost.hosts import PLUMBOB, PYTHON, Hosts, missing
from tests.multihost.inputs import write_inputs
from tests.support.small_run import Left, settings

CORES = (1, 0, 1)
"""Of each host's Ray."""
NUM_CPUS = (1, 2, 2)
"""As each host's Ray counts them: a large worker has room on the second and third alone."""

POLL_S = 0.2
BOOT_S = 300.0
COMMAND_S = 60.0

MAX_WORKERS = 4
NUM_STEPS = 12
"""With each number of workers."""

NUM_KILLS = 2
CALM_S = 30.0
"""How long the others' throughput is measured before a worker is killed."""

SHARES: dict[str, object] = {
    **{"rollout.engine.kind": "vllm", "rollout.num_cpus": 0.5, "reward.num_cpus": 0.25, "learner.num_cpus": 0.25},
    **{"online.num_steps": 100_000, "cluster.call_timeout_s": 600, "cluster.wait_s": 60},
    "rollout.chunk_size": 2,  # Of a step's 8 responses: something to do for every worker.
}
ONE_LONG_STEP: dict[str, object] = {
    # One worker on the second host and one on the third.
    **{"rollout.num_workers": 2, "rollout.num_cpus": 1.5, "rollout.max_tokens": 32, "rollout.chunk_size": 64},
    **{"online.prompts_per_step": 24, "online.samples_per_prompt": 8000, "online.minibatch_size": 192_000},
}

Status = Mapping[str, Any]


class BenchmarkRun:
    """A run of PPO on the head, and what it says of itself several times a second."""

    def __init__(self, hosts: Hosts, name: str, *groups: Mapping[str, object]) -> None:
        self.folder = hosts.shared / "runs" / name
        self.hosts = hosts
        own = {"storage.path": self.folder.parent, "name": name, "cluster.address": hosts.ray_address}
        with on_core(CORES[0]):
            run = [str(PYTHON), "-m", publishing.__name__, "run", "ppo", *settings(*groups, own)]
            self._run = hosts.head.popen(run, stdout=subprocess.DEVNULL)
            watch = [str(PYTHON), "-m", "tests.multihost.benchmark", hosts.ray_address, name]
            self._watch = hosts.head.popen(watch, stdout=subprocess.PIPE)

    def until(self, condition: Callable[[Status], bool]) -> Status:
        """The first status of which the condition holds; the status of a run that has not begun is empty."""
        assert self._watch.stdout is not None
        deadline = time.monotonic() + BOOT_S
        for line in self._watch.stdout:
            status = json.loads(line)
            if condition(status):
                return status
            assert self._run.poll() is None, f"the run has ended with status {self._run.returncode}"
            assert time.monotonic() < deadline, f"waited {BOOT_S:g} s; the last status: {status}"
        raise AssertionError("whoever watched the run has ended")

    def end(self) -> None:
        for process in (self._watch, self._run):
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=COMMAND_S)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started meanwhile has this core alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def responses(status: Status) -> dict[str, int]:
    """Rollout worker -> responses so far."""
    return {row["worker"]: row["answers"] for row in status.get("workers", {}).get("rollout", [])}


def working(status: Status) -> int:
    """How many rollout workers have given a response."""
    return sum(count > 0 for count in responses(status).values())


# ------------------------------------------------------------------------------------------------------------ measuring


def growing(hosts: Hosts, inputs: Mapping[str, object]) -> Iterator[dict[str, Any]]:
    """A run that is scaled from one worker to MAX_WORKERS: one row for each number of workers."""
    run = BenchmarkRun(hosts, "growing", inputs, SHARES)
    for size in range(1, MAX_WORKERS + 1):
        added_s = None
        if size > 1:
            asked = [PLUMBOB, "scale", "growing", "--rollout-workers", str(size), "--address", hosts.ray_address]
            with on_core(CORES[0]):
                assert hosts.head.run(asked, COMMAND_S).returncode == 0
            began = time.time()
            added_s = run.until(lambda status, size=size: working(status) == size)["time"] - began
        first = run.until(lambda status: working(status) > 0 and "step" in status)["step"] + 1
        run.until(lambda status, last=first + NUM_STEPS: status.get("step", 0) >= last)
        steps = Left(run.folder).metrics[first : first + NUM_STEPS]
        phases = {phase: median(step["seconds"][phase] for step in steps) for phase in ("publish", "commit", "sample")}
        yield {"workers": size, "added_s": added_s, **{f"{phase}_s": seconds for phase, seconds in phases.items()}}
    files = [file for file in Left(run.folder).last_checkpoint.rglob("*") if file.is_file()]
    yield {"checkpoint_bytes": sum(file.stat().st_size for file in files), "checkpoint_files": len(files)}
    run.end()


def losing(hosts: Hosts, inputs: Mapping[str, object]) -> Iterator[dict[str, Any]]:
    """A worker on the third host is killed while the one on the second continues: a row for each time."""
    _, near, far = hosts.all
    run = BenchmarkRun(hosts, "losing", inputs, SHARES, ONE_LONG_STEP)
    for _ in range(NUM_KILLS):
        begun = run.until(lambda status: working(status) == 2)
        ends = begun["time"] + CALM_S
        calm = run.until(lambda status, ends=ends: status.get("time", 0.0) >= ends)
        rows = {row["host"]: row["worker"] for row in calm["workers"]["rollout"]}
        stayer, lost = rows[near.address], rows[far.address]
        for pid in far.pids("ray::RolloutWorker"):
            far.kill(pid, signal.SIGKILL)
        replaced = run.until(lambda status, lost=lost: lost not in responses(status) and working(status) == 2)
        yield {
            "before_per_s": rate(stayer, begun, calm),
            "meanwhile_per_s": rate(stayer, calm, replaced),
            "replaced_s": replaced["time"] - calm["time"],
        }
    run.end()


def rate(worker: str, first: Status, last: Status) -> float:
    """Responses a second."""
    seconds: float = last["time"] - first["time"]
    return (responses(last)[worker] - responses(first)[worker]) / seconds


def watch(address: str, name: str) -> None:
    """On the head: print the run's status again and again; an empty one where it does not answer."""
    with joined_briefly(address):
        while True:
            status: Status = {}
            with suppress(UserError):  # It has not begun, or it has gone.
                status = answer(find(name).status.remote())
            print(json.dumps(status, default=str), flush=True)
            time.sleep(POLL_S)


def main() -> int:
    lacking = missing()
    if lacking:
        print(lacking, file=sys.stderr)
        return 2
    with ExitStack() as made:
        shared, logs = (Path(made.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        hosts = made.enter_context(Hosts(len(CORES), shared, logs))
        for host, core, num_cpus in zip(hosts.all, CORES, NUM_CPUS, strict=True):
            with on_core(core):
                host.start_ray(None if host is hosts.head else hosts.ray_address, num_cpus)
            host.await_ray()
        inputs = write_inputs(shared)
        for measured in (growing, losing):
            for row in measured(hosts, inputs):
                print(json.dumps({"measured": measured.__name__, **row}), flush=True)
    return 0


if __name__ == "__main__":
    if sys.argv[1:]:
        watch(*sys.argv[1:])
    sys.exit(main())
