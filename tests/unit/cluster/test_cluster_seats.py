"""The hosts of a real Ray."""

import pytest
import ray

from cluster.seats import nodes_on
from configs.errors import UserError

pytestmark = pytest.mark.usefixtures("one_cpu")


def test_which_hosts_can_be_left() -> None:
    (node,) = ray.nodes()
    address, name = node["NodeManagerAddress"], node["NodeManagerHostname"]
    with pytest.raises(UserError) as unknown:
        nodes_on("10.9.9.9")
    assert str(unknown.value) == f"10.9.9.9: no host of this cluster; it has {address} ({name})"
    for host in (address, name):
        with pytest.raises(
            UserError, match=rf"^{host}: it is the only host of this cluster; `plumbob stop` ends a run"
        ):
            nodes_on(host)
