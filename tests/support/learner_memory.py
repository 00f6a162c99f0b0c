"""The memory that a learner takes in this process, beside what is expected of it; docs/cluster.md has its figures.

    python -m tests.support.learner_memory POLICY ROWS TOKENS [a.b=c ...]

Two updates and a checkpoint of supervised fine-tuning, with rows of random tokens.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from plumbob.cluster.resources import widest
from plumbob.configs.load_run import load_run
from plumbob.configs.runs import SftRun
from plumbob.data.tokenization import TokenBatch
from plumbob.driver.input_sizes.learner_rows import LearnerRows
from plumbob.driver.planning.expected_memory import expected_memory
from plumbob.models.sizes.memory import GIB
from plumbob.trainers.learner.learner_protocol import UpdatePlan
from plumbob.verify.local_learner import open_learner


def peak_gib() -> float:
    """Of this process, as Linux counts it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / GIB


def measure(policy: str, num_rows: int, num_tokens: int, overrides: list[str]) -> tuple[float, float]:
    """What was expected and what was taken at most, in GiB."""
    given = [f"policy.model={policy}", "data.demonstrations=none", f"learner.micro_batch_size={num_rows}", *overrides]
    run = load_run("sft", given)
    assert isinstance(run, SftRun)
    expected = widest(expected_memory(run, {run.stage: LearnerRows(num_tokens)}))["learner"].total / GIB
    learner = open_learner(run)
    ids = np.random.default_rng(0).integers(5, 300, (num_rows, num_tokens))
    batch = TokenBatch(ids, np.ones(ids.shape, np.bool_), np.ones(ids.shape, np.bool_))
    for _ in range(2):
        learner.update(batch, UpdatePlan(num_rows, 1, 1.0, 0))
    with tempfile.TemporaryDirectory() as folder:
        learner.save(Path(folder))
    return expected, peak_gib()


if __name__ == "__main__":
    expected, taken = measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    print(f"expected {expected:.2f} GiB, taken {taken:.2f} GiB ({expected / taken - 1:+.0%})")
