"""A connection to the dashboard of a Ray cluster: its address, token, version and time limits."""

import logging
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import ray
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from plumbob.cluster.connection import HOW_TO_GIVE_A_TOKEN
from plumbob.core.errors import UserError, first_line

REQUEST_S = 10.0
"""How long the dashboard has to take a connection, and to answer a question."""

HANDOVER_S = 60.0
"""How long it has to keep a file or to start a job: the processes for that may still be starting."""

RAY_ADDRESSES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
"""Variables that Ray's client would take for the address, whatever it is given."""

UNREACHABLE = (OSError, aiohttp.ClientError, AuthenticationError, RuntimeError, ValueError, LookupError, TypeError)
"""What Ray's client raises where nothing answers, or not as a dashboard does; requests' errors are OSErrors."""

CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")
"""Loggers of Ray's client that tell of every upload and connection."""


class DashboardClient(JobSubmissionClient):
    """Ray's client, which would wait for ever where a connection is taken and nothing is said."""

    def _do_request(self, method: str, endpoint: str, **arguments: Any) -> Any:
        answer_s = REQUEST_S if method == "GET" else HANDOVER_S
        return super()._do_request(method, endpoint, timeout=(REQUEST_S, answer_s), **arguments)

    @property
    def server_version(self) -> str:
        return str(self._do_request("GET", "/api/version").json()["ray_version"])


def connect_dashboard(address: str) -> DashboardClient:
    """Raises UserError: no dashboard answers there, its Ray is another version, or it refuses the token."""
    _check_address(address)
    token = _token_headers()
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with _without(RAY_ADDRESSES):
            client = DashboardClient(address, headers=token)
        version = client.server_version
    except AuthenticationError as error:
        raise UserError(f"{address}: {_what_lacks(token)}") from error
    except ConnectionError as error:
        raise UserError(
            f"--address {address}: nothing answers there; give the address of the head's dashboard, "
            f"such as http://HEAD:8265, where `ray start --head --dashboard-host 0.0.0.0` has been called"
        ) from error
    except UNREACHABLE as error:
        raise UserError(
            f"--address {address}: what answers there is no Ray dashboard ({first_line(error)}); Ray's own port, "
            f"mostly 6379, is another one: give the dashboard's, mostly 8265"
        ) from error
    if _release(version) != _release(ray.__version__):
        raise UserError(
            f"--address {address}: the cluster runs Ray {version}, and this is Ray {ray.__version__}; "
            f"submit from an environment with the cluster's version"
        )
    return client


def ray_command(*words: str) -> str:
    """A command of Ray's own as a user can paste it here: it reaches what we reach, with the token that we send.

    By itself it sends a token in token mode alone, and asks what RAY_ADDRESSES name, whatever address it is given.
    """
    others = [word for name in RAY_ADDRESSES if name in os.environ for word in ("-u", name)]
    is_in_token_mode = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    mode = ["RAY_AUTH_MODE=token"] if _token_headers() and not is_in_token_mode else []
    own = Path(sys.executable).with_name("ray")
    ray_program = str(own) if own.exists() and shutil.which("ray") != str(own) else "ray"
    return shlex.join([*(["env", *others, *mode] if others or mode else []), ray_program, *words])


def _check_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port is not None
    except ValueError:
        is_whole = False
    if not is_whole:
        raise UserError(f"--address {address}: expected the head's dashboard, such as http://HEAD:8265")


def _token_headers() -> dict[str, str]:
    """The token of Ray's own places (RAY_AUTH_TOKEN, a file), which its client sends only in token mode."""
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        return {}
    loader = AuthenticationTokenLoader.instance()
    try:
        headers: dict[str, str] = loader.get_token_for_http_header(ignore_auth_mode=True)
    except AuthenticationError as error:
        raise UserError(f"RAY_AUTH_TOKEN_PATH: {first_line(error)}") from error
    return headers


def _what_lacks(token: dict[str, str]) -> str:
    return f"the cluster {'refuses this token' if token else 'asks for a token'}; {HOW_TO_GIVE_A_TOKEN}"


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    """Without these variables of the environment."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _release(version: str) -> tuple[str, ...]:
    """Major and minor number: Ray's interfaces stay the same within them."""
    return tuple(version.split(".")[:2])
