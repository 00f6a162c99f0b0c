"""One Ray for the tests of this folder, and pools on it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plumbob.cluster.calls import wait_until
from plumbob.cluster.fleet import capacity, learner_ranks
from tests.support.pool_of_actors import TIMEOUT_S, PoolOfActors
from tests.support.small_fleet import SmallFleet, free_cpus
from tests.support.small_ray import ray_of_one_cpu


@pytest.fixture(scope="package")
def one_cpu() -> Iterator[None]:
    """A private Ray cluster of one CPU in this process."""
    with ray_of_one_cpu():
        yield


@pytest.fixture
def pool_of(one_cpu: None, tmp_path: Path) -> Iterator[Callable[..., PoolOfActors]]:
    made: list[PoolOfActors] = []

    def make(size: int, **settings: Any) -> PoolOfActors:
        # What the test before held is free again.
        assert made or wait_until(lambda: free_cpus() == 1.0, TIMEOUT_S)
        made.append(PoolOfActors(size, tmp_path, **settings))
        return made[-1]

    yield make
    for each in made:
        each.pool.close()


@pytest.fixture
def small_fleet(one_cpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallFleet]:
    monkeypatch.setattr(capacity, "PATIENCE_S", 1.0)
    monkeypatch.setattr(learner_ranks, "ANY_HOST_S", 2.0)
    assert wait_until(lambda: free_cpus() == 1.0, TIMEOUT_S)  # What the test before held.
    made = SmallFleet(tmp_path)
    yield made
    made.end()
