"""A run as it is sent to a cluster, and workers that one might need."""

from pathlib import Path

from plumbob.cluster.launchers.job_files import for_cluster
from plumbob.cluster.resources import ResourceNeed
from plumbob.configs.load_run import load_run
from plumbob.configs.runs import AnyRun

PPO = ["policy.model=/models/p", "reward.model=/models/r", "data.prompts=/data/p.jsonl", "name=align"]
"""Its settings but for storage.path."""


def online(*overrides: str, storage: Path | str = "/shared/runs") -> AnyRun:
    return for_cluster(load_run("ppo", [*PPO, f"storage.path={storage}", *overrides]))


def need(count: int, num_cpus: float, num_gpus: float) -> ResourceNeed:
    return ResourceNeed("learner", "learner.num_workers", count, num_cpus, num_gpus, memory_gib=1.0, spread=False)
