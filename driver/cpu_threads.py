"""How many CPU threads each process of a run has, where the settings leave it open."""

import os
from pathlib import Path
from typing import Any, TypeVar

from plumbob.configs.runs import OnlineRun, PipelineRun, Run
from plumbob.configs.settings.workers import ClusterSettings, RolloutSettings, WorkerGroupSettings

R = TypeVar("R", bound=Run)

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Of a container: microseconds of CPU time, or `max`, and the period in which it may use them."""


def with_threads(run: R) -> R:
    """The same run, every group of whose workers has a number of threads.

    By `OMP_NUM_THREADS`, as of every program that computes with torch. Where that is not set, on a private cluster the
    roles take turns, so that each has all of this machine's cores, shared by the processes of its group; a run that
    samples beside learning halves them between the two. On a cluster that others run it is what a process asks of Ray.
    """
    changes: dict[str, Any] = {}
    for name, group in run:
        if isinstance(group, WorkerGroupSettings) and group.num_threads is None:
            changes[name] = group.model_copy(update={"num_threads": _threads(run, name, group)})
    return run.model_copy(update=changes)


def _threads(run: Run, name: str, group: WorkerGroupSettings) -> int:
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    if run.cluster.address != "local":
        return max(1, int(group.num_cpus))
    is_beside = (
        isinstance(run, OnlineRun | PipelineRun) and run.online.max_staleness > 0 and name in ("learner", "rollout")
    )
    return max(1, num_cores(run.cluster) // (_num_processes(group) * (2 if is_beside else 1)))


def _num_processes(group: WorkerGroupSettings) -> int:
    """Of a group that grows and shrinks, the most."""
    autoscale = group.autoscale if isinstance(group, RolloutSettings) else None
    return group.num_workers if autoscale is None else autoscale.max_workers


def num_cores(cluster: ClusterSettings) -> int:
    """That a private cluster's processes may use: those of the machine that this process may, no more than it is given
    time on, nor than `cluster.num_cpus`."""
    limits = [len(os.sched_getaffinity(0))]
    if cluster.num_cpus is not None:
        limits.append(cluster.num_cpus)
    quota, _, period = QUOTA.read_text().partition(" ") if QUOTA.exists() else ("max", "", "")
    if quota != "max":
        limits.append(max(1, int(quota) // int(period)))
    return min(limits)
