"""How a process that measures rows begins; imports nothing, so that it comes before torch does."""

import os
import sys


def prepare_worker() -> None:
    """One thread, no GPU, and stdout to stderr: what libraries print must not stand between lines of JSON."""
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
