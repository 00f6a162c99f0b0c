"""One Ray for the tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.support.small_ray import ray_of_one_cpu


@pytest.fixture(scope="package")
def one_cpu() -> Iterator[None]:
    """A private Ray cluster of one CPU in this process."""
    with ray_of_one_cpu():
        yield
