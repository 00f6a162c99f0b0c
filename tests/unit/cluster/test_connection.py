"""What answers as Ray does, and is none that a run can join."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc  # type: ignore[import-untyped]
import pytest
import ray
from ray.core.generated.gcs_service_pb2 import CheckAliveReply, CheckAliveRequest

from plumbob.cluster.connection import PROBE_S, joined_briefly, start_or_join
from plumbob.configs.settings.workers import ClusterSettings
from plumbob.core.errors import UserError


@contextmanager
def answering(reply: Callable[[], CheckAliveReply]) -> Iterator[str]:
    """The address of a server that speaks the part of Ray's protocol that a driver begins with."""
    check_alive = grpc.unary_unary_rpc_method_handler(
        lambda request, context: reply(), CheckAliveRequest.FromString, CheckAliveReply.SerializeToString
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
    with answering(lambda: reply) as address, pytest.raises(UserError) as error:
        start_or_join(ClusterSettings(address=address))
    said = str(error.value)
    assert said.startswith(f"cluster.address={address}: ")
    return said.removeprefix(f"cluster.address={address}: ").replace(address, "HEAD:PORT")


def test_a_ray_of_another_version() -> None:
    said = refused(CheckAliveReply(ray_version="2.9.3", raylet_alive=[True]))
    assert said == (
        f"the Ray cluster there is version 2.9.3, and the one here is {ray.__version__}; install the same on both"
    )


def test_a_ray_that_this_machine_is_no_host_of() -> None:
    said = refused(CheckAliveReply(ray_version=ray.__version__, raylet_alive=[False, False]))
    assert said == (
        "this machine is no host of the Ray cluster there; run `ray start --address=HEAD:PORT` on it first, or send a "
        "run to the head with `plumbob submit`, and look at one with --address ray://127.0.0.1:10001"
    )


def test_a_ray_that_this_machine_is_becoming_a_host_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under Slurm, where a driver starts beside its Ray: it asks again, here until the third answer refuses it."""
    version = ray.__version__
    replies = [(version, False), (version, False), ("2.9.3", True)]
    asked = iter([CheckAliveReply(ray_version=version, raylet_alive=[alive]) for version, alive in replies])
    with answering(lambda: next(asked)) as address, pytest.raises(UserError, match=r"is version 2\.9\.3"):
        start_or_join(ClusterSettings(address=address, wait_s=30.0))
    monkeypatch.setattr("plumbob.cluster.connection.JOINING_S", 0.5)
    never = CheckAliveReply(ray_version=version, raylet_alive=[False])
    with answering(lambda: never) as address, pytest.raises(UserError, match="this machine is no host"):
        start_or_join(ClusterSettings(address=address, wait_s=3600.0))


@contextmanager
def client_server(code: grpc.StatusCode | None) -> Iterator[str]:
    """The address of what listens where a client server would, and refuses with that code; None: knows no question."""

    def refuse(request: object, context: grpc.ServicerContext) -> None:
        context.abort(code, "no")

    server = grpc.server(ThreadPoolExecutor(1))
    if code is not None:
        calls = {"ClusterInfo": grpc.unary_unary_rpc_method_handler(refuse)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("ray.rpc.RayletDriver", calls),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"ray://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            grpc.StatusCode.UNAUTHENTICATED,
            r"the Ray cluster there (asks for a token|does not take the token that it .*); set RAY_A",
        ),
        (None, r"what listens there does not answer as Ray does: UNIMPLEMENTED; give .* or ray://HEAD:10001$"),
    ],
)
def test_a_client_server_that_does_not_take_us(code: grpc.StatusCode | None, said: str) -> None:
    with client_server(code) as address:
        began = time.monotonic()
        with pytest.raises(UserError, match=rf"^cluster\.address={address}: {said}"), joined_briefly(address):
            pass
    assert time.monotonic() - began < PROBE_S + 5.0  # Ray's own client would try for half a minute.


def test_what_says_nothing_where_a_client_server_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plumbob.cluster.connection.PROBE_S", 1.0)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"ray://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(UserError, match="does not answer as Ray does: DEADLINE_EXCEEDED"), joined_briefly(address):
            pass
