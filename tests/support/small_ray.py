"""A Ray of one CPU in the process of the tests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from plumbob.cluster.connection import QUIET
from plumbob.cluster.private_ray import with_workers_alone


@contextmanager
def ray_of_one_cpu() -> Iterator[None]:
    """A private Ray cluster of one CPU in this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_TOKEN", "0" * 64)
    with with_workers_alone():
        ray.init(address="local", num_cpus=1, include_dashboard=False, **QUIET)
    yield
    ray.shutdown()
