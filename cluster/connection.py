"""Joining a Ray cluster, or starting a private one on this machine."""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
import ray
from ray._private import auto_init_hook
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._private.grpc_utils import init_grpc_channel
from ray._private.ray_constants import GLOBAL_GRPC_OPTIONS
from ray._private.services import canonicalize_bootstrap_address_or_die, find_node_ids, resolve_ip_for_localhost
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.core.generated.gcs_service_pb2 import CheckAliveReply, CheckAliveRequest
from ray.core.generated.ray_client_pb2 import ClusterInfoRequest, ClusterInfoResponse, ClusterInfoType
from ray.exceptions import AuthenticationError, RayError

from plumbob.cluster import private_ray
from plumbob.cluster.calls import wait_until
from plumbob.cluster.nodes import available_memory
from plumbob.cluster.workers.import_path import WorkerImports
from plumbob.configs.settings.workers import ClusterSettings
from plumbob.core.errors import NotRunningError, UserError, first_line
from plumbob.core.host_network import LOOPBACK
from plumbob.core.process_ends.stop_signals import stop_signals

NAMESPACE = "plumbob"

PROBE_S = 5.0
"""How long a Ray cluster has to answer."""

JOINING_S = 60.0
"""How long this machine may take to become a host of a cluster that answers: its raylet says so seconds later."""

CLIENT_TRIES = 3
"""How often a client asks: Ray makes a server for each, and a busy head loses some of them as they start."""

CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
CLIENT_INFO = "/ray.rpc.RayletDriver/ClusterInfo"

CLIENT = "ray://"
"""How the address of a Ray cluster begins that is reached from a machine that is no host of it."""

QUIET: dict[str, Any] = {
    "log_to_driver": False,
    "logging_level": "error",
    "namespace": NAMESPACE,
    "configure_logging": True,
}

HOW_TO_GIVE_A_TOKEN = (
    "set RAY_AUTH_TOKEN to what `ray get-auth-token` prints on the head, or RAY_AUTH_TOKEN_PATH to a file that holds it"
)


def start_or_join(cluster: ClusterSettings) -> None:
    """Start a private Ray cluster on this machine, or join the one at `cluster.address`.

    Raises:
        NotRunningError: nothing answers at that address.
        UserError: what answers is no Ray cluster, one of another version, or does not take our token.
        RunFailed: a private Ray cluster did not start.
    """
    if cluster.address == "local":
        # A private Ray cluster guards itself with a token of its own, and leaves the user's token file alone.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # By itself Ray gives its workers the niceness 15: whatever else the machine does would go before a run.
        os.environ.setdefault("RAY_worker_niceness", "0")
        with private_ray.starting() as folder, private_ray.loopback_as_given(), private_ray.with_workers_alone():
            _init(
                address="local",
                num_cpus=cluster.num_cpus,
                _memory=available_memory(),
                include_dashboard=False,
                _temp_dir=str(folder),
                _node_ip_address=LOOPBACK,
            )
    elif cluster.address.startswith(CLIENT):
        raise UserError(
            f"cluster.address={cluster.address}: a run has to be on a host of its Ray cluster; `plumbob submit` "
            f"sends it there from any machine"
        )
    else:
        _join(cluster.address, min(cluster.wait_s, JOINING_S))


@contextmanager
def joined_briefly(address: str) -> Iterator[None]:
    """Join a Ray cluster for a moment, to look or to ask for something; through `ray://HEAD:10001` from any machine.

    In a process that has joined it already, such as a run's own, that stays as it is.

    Raises:
        NotRunningError, UserError: as `start_or_join`; or this process is on another Ray.
    """
    if ray.is_initialized() and address in ("auto", own_address()):
        yield
        return
    _join(address)
    try:
        yield
    finally:
        disconnect()


def disconnect() -> None:
    """Leave the Ray cluster that was joined, or end the private one, of which nothing is left."""
    ray.shutdown()
    private_ray.remove_folders()


@contextmanager
def started_or_joined(cluster: ClusterSettings) -> Iterator[None]:
    """`start_or_join`, and `disconnect` at the end. Raises as `start_or_join`."""
    start_or_join(cluster)
    try:
        yield
    finally:
        disconnect()


def own_address() -> str:
    """`HOST:PORT` of the Ray cluster that this process is on."""
    address: str = ray.get_runtime_context().gcs_address
    return address


def _init(**arguments: Any) -> None:
    """Raises UserError where this process is on a Ray cluster already."""
    if ray.is_initialized():
        here = own_address()
        raise UserError(
            f"cluster.address={arguments['address']}: this process is on the Ray cluster at {here} already; use "
            f"another process"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A thread that outlives the connection has to fail: Ray would start another one for it.
    auto_init_hook.enable_auto_connect = False
    if not arguments["address"].startswith(CLIENT):  # Ray clients start no workers.
        arguments["job_config"] = WorkerImports()
    with stop_signals.held(), private_ray.without_handlers():
        ray.init(**arguments, **QUIET)


def _init_as_client(address: str) -> None:
    """Raises UserError where each of `CLIENT_TRIES` servers was lost before it took us."""
    for _ in range(CLIENT_TRIES):
        try:
            return _init(address=address)
        except ConnectionAbortedError as error:
            reason = str(error).strip().splitlines()[-1].rstrip(".")
    raise UserError(
        f"cluster.address={address}: the head started {CLIENT_TRIES} servers for this command and none accepted "
        f"the connection: {reason}; run the command on a host of the cluster"
    )


def _join(address: str, wait_s: float = 0.0) -> None:
    """Join the Ray cluster there; `wait_s`: how long this machine may take to become a host of it."""
    try:
        has_token = _use_token()
        _probe(address, has_token, wait_s)
        with private_ray.loopback_as_given() if _is_private(address) else nullcontext():
            (_init_as_client if address.startswith(CLIENT) else _init)(address=address)
    except UserError:
        raise
    except AuthenticationError as error:
        raise UserError(f"cluster.address={address}: no token can be read: {first_line(error)}") from error
    except (ConnectionError, ValueError, RuntimeError, RayError) as error:
        raise UserError(f"cluster.address={address}: cannot be joined: {error}") from error


def _is_private(address: str) -> bool:
    """Whether what answers there is reached on the loopback interface alone, as a private cluster's is."""
    host, _, port = address.rpartition(":")
    if host != LOOPBACK:
        return False
    try:
        socket.create_connection((resolve_ip_for_localhost(host), int(port)), PROBE_S).close()
    except OSError:
        return True
    return False


def _use_token() -> bool:
    """Send the token that the environment or the user has, which Ray does by itself for `auto` alone.

    Returns whether one is sent.
    """
    has_token: bool = AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
    if has_token and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        Config.initialize("")
    return has_token and is_token_auth_enabled()


def _probe(address: str, has_token: bool, wait_s: float) -> None:
    """Ask once whether a cluster is there that takes us: Ray itself would try for a minute, and print every try.

    Raises:
        UserError: it is not.
    """
    found = canonicalize_bootstrap_address_or_die(address) if address == "auto" else address
    host, port = _host_and_port(found, address)
    try:
        socket.create_connection((host, port), PROBE_S).close()
    except OSError as error:
        raise NotRunningError(
            f"cluster.address={address}: nothing answers there: {error}; give the address that `ray start --head` "
            f"printed, or local"
        ) from error
    if found.startswith(CLIENT):
        ping = ClusterInfoRequest(type=ClusterInfoType.PING)
        _ask(f"{host}:{port}", CLIENT_INFO, ping, ClusterInfoResponse, address, has_token)
    else:
        _check_ray(f"{host}:{port}", address, has_token, wait_s)


def _host_and_port(found: str, address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{found.removeprefix(CLIENT)}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise UserError(f"cluster.address={address}: expected local, auto or HOST:PORT")
    return host, port


def _check_ray(host_and_port: str, address: str, has_token: bool, wait_s: float) -> None:
    """Raises UserError unless a Ray cluster of our version listens that takes our token and has this host."""

    def is_host() -> bool:
        here = [bytes.fromhex(node_id) for node_id in find_node_ids()]
        question = CheckAliveRequest(node_ids=here)
        reply = _ask(host_and_port, CHECK_ALIVE, question, CheckAliveReply, address, has_token)
        if reply.ray_version != ray.__version__:
            raise UserError(
                f"cluster.address={address}: the Ray cluster there is version {reply.ray_version}, and the one here is "
                f"{ray.__version__}; install the same on both"
            )
        return any(reply.raylet_alive)

    if not wait_until(is_host, wait_s):
        raise UserError(
            f"cluster.address={address}: this machine is no host of the Ray cluster there; run `ray start "
            f"--address={host_and_port}` on it first, or send a run to the head with `plumbob submit`, and look at one "
            f"with --address {CLIENT}{host_and_port.rpartition(':')[0]}:10001"
        )


def _ask(host_and_port: str, call: str, question: Any, reply: Any, address: str, has_token: bool) -> Any:
    """One question to what listens there, which answers as Ray does and takes our token, or UserError.

    Args:
        question: a message.
        reply: the kind of message that answers it.
    """
    with init_grpc_channel(host_and_port, GLOBAL_GRPC_OPTIONS) as channel:
        try:
            return channel.unary_unary(call, type(question).SerializeToString, reply.FromString)(
                question, timeout=PROBE_S
            )
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                refused = "does not take the token that it was given" if has_token else "asks for a token"
                refused = f"the Ray cluster there {refused}; {HOW_TO_GIVE_A_TOKEN}"
                raise UserError(f"cluster.address={address}: {refused}") from error
            give = f"{CLIENT}HEAD:10001" if address.startswith(CLIENT) else "local"
            raise UserError(
                f"cluster.address={address}: what listens there does not answer as Ray does: {error.code().name}; "
                f"give the address that `ray start --head` printed, or {give}"
            ) from error
