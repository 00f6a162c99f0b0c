"""Three hosts with one Ray, for all tests of this folder; each test gets them whole and leaves them so."""

from collections.abc import Iterator

import pytest

from tests.multihost.driver import RayConsole, ray_console
from tests.multihost.hosts import Hosts, missing
from tests.multihost.inputs import write_inputs
from tests.support.host_requirements import cannot


@pytest.fixture(scope="package")
def cluster_of_three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    lacking = missing()
    if lacking:
        cannot(lacking)
    with Hosts(3, tmp_path_factory.mktemp("shared"), tmp_path_factory.mktemp("logs")) as hosts:
        # So few CPUs that workers have to spread.
        hosts.start_ray(num_cpus=1, with_dashboard=True)
        yield hosts


@pytest.fixture(scope="package")
def inputs(cluster_of_three: Hosts) -> dict[str, object]:
    return write_inputs(cluster_of_three.shared)


@pytest.fixture
def hosts(cluster_of_three: Hosts, console: RayConsole) -> Iterator[Hosts]:
    yield cluster_of_three
    cluster_of_three.put_back(console.alive)


@pytest.fixture(scope="package")
def console(cluster_of_three: Hosts) -> Iterator[RayConsole]:
    """A driver on the head."""
    with ray_console(cluster_of_three.head, cluster_of_three.ray_address) as console:
        yield console
