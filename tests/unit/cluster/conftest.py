"""One Ray for the tests of this folder."""

import os
from collections.abc import Iterator

import pytest
import ray


@pytest.fixture(scope="package")
def one_cpu() -> Iterator[None]:
    """A private Ray of one CPU in this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_TOKEN", "0" * 64)
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()
