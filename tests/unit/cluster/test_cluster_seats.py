"""The hosts of a real Ray."""

from itertools import chain

import pytest
import ray

from cluster import seats
from cluster.placement import Amount, Host
from cluster.seats import Seating, hosts, nodes_on
from configs.errors import UserError
from tests.crew import NEED

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


def test_a_host_that_does_not_answer_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    # Roomier than the real one, so that it is chosen first; Ray can place nothing there.
    ghost = Host("10.9.9.9", "f" * 56, Amount(8.0, 0.0, 64.0))
    seating = Seating()
    with monkeypatch.context() as patched:
        patched.setattr(seats, "ONE_PLACED_S", 0.2)
        patched.setattr(seats, "hosts", lambda free: tuple(chain(hosts(free), [ghost])))
        assert seating.take_one(NEED, {}, ()) is None
        patched.setattr(seats, "ONE_PLACED_S", 60.0)
        seat = seating.take_one(NEED, {}, ())
        assert seat is not None and seat.host.address != ghost.address
        assert len(seating._held) == 1
    ray.util.remove_placement_group(seat.group)
