"""The processes that `plumbob verify` measures in."""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from plumbob.verify.worker_process import prepare_worker


def printed() -> tuple[str | None, bool]:
    """Prints as Python and as C libraries do. Returns the threads allowed, and whether torch came before."""
    print("by Python", flush=True)
    os.write(1, b"by the file descriptor\n")
    return os.environ.get("OMP_NUM_THREADS"), "torch" in sys.modules


def test_a_worker_leaves_stdout_to_the_results(capfd: pytest.CaptureFixture[str]) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), prepare_worker) as pool:
        assert pool.submit(printed).result(timeout=60) == ("1", False)
    found = capfd.readouterr()
    assert found.out == ""
    assert "by Python" in found.err and "by the file descriptor" in found.err
