"""The memory that learners take, beside what is expected of them; docs/cluster.md has its figures.

    python -m tests.support.learner_memory POLICY ROWS TOKENS [a.b=c ...]

Two updates and a checkpoint of supervised fine-tuning, with rows of random tokens: ROWS a micro-batch of each rank, in
as many processes as `learner.num_workers` says.
"""

import multiprocessing
import os
import socket
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from plumbob.cluster.resources import widest
from plumbob.configs.load_run import load_run
from plumbob.configs.runs import SftRun
from plumbob.data.tokenization import TokenBatch
from plumbob.driver.input_sizes.learner_rows import LearnerRows
from plumbob.driver.planning.expected_memory import expected_memory
from plumbob.models.sizes.memory import GIB
from plumbob.trainers.build import build_learner
from plumbob.trainers.learner.engine import Rank, join_group
from plumbob.trainers.learner.learner_protocol import UpdatePlan


def peak_gib() -> float:
    """Of this process, as Linux counts it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / GIB


def asked(policy: str, num_rows: int, overrides: list[str]) -> SftRun:
    given = [f"policy.model={policy}", "data.demonstrations=none", f"learner.micro_batch_size={num_rows}"]
    run = load_run("sft", [*given, "sft.batch_size=960", *overrides])
    assert isinstance(run, SftRun)
    return run


def taken_by_rank(policy: str, num_rows: int, num_tokens: int, overrides: list[str], folder: str, rank: Rank) -> float:
    """At most, in GiB."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    join_group(rank, use_cuda=False)
    learner = build_learner(asked(policy, num_rows, overrides), rank)
    all_rows = num_rows * rank.world_size
    ids = np.random.default_rng(0).integers(5, 300, (all_rows, num_tokens))
    batch = TokenBatch(ids, np.ones(ids.shape, np.bool_), np.ones(ids.shape, np.bool_))
    for _ in range(2):
        learner.update(batch, UpdatePlan(all_rows, 1, 1.0, 0))
    learner.save(Path(folder))
    return peak_gib()


def measure(policy: str, num_rows: int, num_tokens: int, overrides: list[str]) -> tuple[float, list[float]]:
    """What was expected, and what each rank took at most, in GiB."""
    run = asked(policy, num_rows, overrides)
    expected = widest(expected_memory(run, {run.stage: LearnerRows(num_tokens)}))["learner"].total / GIB
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        master = f"127.0.0.1:{probe.getsockname()[1]}"
    count = run.learner.num_workers
    # Begun anew, so that none counts what another holds.
    spawned = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(count, spawned) as pool:
        of_rank = partial(taken_by_rank, policy, num_rows, num_tokens, overrides, folder)
        return expected, list(pool.map(of_rank, [Rank(index, count, master) for index in range(count)]))


if __name__ == "__main__":
    expected, taken = measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    shown = ", ".join(f"{one:.2f}" for one in taken)
    print(f"expected {expected:.2f} GiB of each rank, taken {shown} GiB ({expected / max(taken) - 1:+.0%})")
