"""What answers as a Ray does, and is none that a run can join."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc  # type: ignore[import-untyped]
import pytest
import ray
from ray.core.generated.gcs_service_pb2 import CheckAliveReply, CheckAliveRequest

from cluster.connect import connect
from configs.errors import UserError
from configs.roles import Cluster


@contextmanager
def answering(reply: CheckAliveReply) -> Iterator[str]:
    """The address of a server that speaks the part of Ray's protocol that a driver begins with."""
    check_alive = grpc.unary_unary_rpc_method_handler(
        lambda request, context: reply, CheckAliveRequest.FromString, CheckAliveReply.SerializeToString
    )
    server = grpc.server(ThreadPoolExecutor(1))
    service = grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", {"CheckAlive": check_alive})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def refused(reply: CheckAliveReply) -> str:
    """What is said, after the address."""
    with answering(reply) as address, pytest.raises(UserError) as error:
        connect(Cluster(address=address))
    said = str(error.value)
    assert said.startswith(f"cluster.address={address}: ")
    return said.removeprefix(f"cluster.address={address}: ").replace(address, "HEAD:PORT")


def test_a_ray_of_another_version() -> None:
    said = refused(CheckAliveReply(ray_version="2.9.3", raylet_alive=[True]))
    assert said == f"the Ray there is version 2.9.3, and the one here is {ray.__version__}; install the same on both"


def test_a_ray_that_this_machine_is_no_host_of() -> None:
    said = refused(CheckAliveReply(ray_version=ray.__version__, raylet_alive=[False, False]))
    assert said == (
        "this machine is no host of the Ray there; run `ray start --address=HEAD:PORT` on it first, or send a run to "
        "the head with `plumbob submit`, and look at one with --address ray://127.0.0.1:10001"
    )
