"""Sends a run to a cluster as a Ray job, and follows what it prints. Every request has a bound."""

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import ray
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from plumbob.cluster.connection import HOW_TO_GIVE_A_TOKEN
from plumbob.cluster.launchers.job_files import entrypoint, write_job
from plumbob.configs.runs import AnyRun
from plumbob.core.errors import RunFailed, UserError, first_line

REQUEST_S = 10.0
"""How long the dashboard has to take a connection, and to answer a question."""

HANDOVER_S = 60.0
"""How long it has to keep a file or to start a job: the processes for that may still be starting."""

CHECK_S = 5.0
"""While a job prints nothing: how often it is asked for."""

PATIENCE_S = 60.0
"""How long the dashboard may be out of reach before following a job is given up."""

RAY_ADDRESSES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
"""Variables that Ray's client would take for the address, whatever it is given."""

UNREACHABLE = (OSError, aiohttp.ClientError, AuthenticationError, RuntimeError, ValueError, LookupError, TypeError)
"""What Ray's client raises where nothing answers, or not as a dashboard does; requests' errors are OSErrors."""

CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")
"""Loggers of Ray's client that tell of every upload and connection."""

Write = Callable[[str], None]


@dataclass(frozen=True)
class Ended:
    """How a job ended.

    Attributes:
        exit_code: of the run's own process; None where Ray ended it, or never started it.
        message: what Ray says of it.
    """

    job: str
    succeeded: bool
    stopped: bool
    exit_code: int | None
    message: str


class Jobs:
    """The jobs of one cluster.

    Args:
        address: the head's dashboard, such as `http://HEAD:8265`.

    Raises:
        UserError: no dashboard answers there, its Ray is another version, or it refuses the token.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._client = _connect(self.address)

    def submit(self, config: AnyRun, with_source: bool, resumes: bool, as_json: bool) -> str:
        """Start a run on the head, or go on with it if it `resumes` and has begun; its job's id."""
        with tempfile.TemporaryDirectory(prefix="plumbob-") as folder:
            write_job(config, Path(folder), with_source)
            try:
                job: str = self._client.submit_job(
                    entrypoint=entrypoint(with_source, resumes, as_json),
                    runtime_env={"working_dir": folder},
                    metadata={"plumbob_run": config.name},
                )
            except UNREACHABLE as error:
                raise RunFailed(
                    f"{self.address} did not confirm that the job has started: {first_line(error)}; whether it has: "
                    f"ray job list --address {self.address}"
                ) from error
        return job

    def follow(self, job: str, write: Write) -> Ended:
        """Pass on what the job prints until it has ended; how it ended.

        Raises:
            RunFailed: the dashboard could not be reached for a minute; the job may go on.
        """
        details = asyncio.run(_Following(self._client, job, write).until_it_ends())
        return Ended(
            job=job,
            succeeded=details.status == JobStatus.SUCCEEDED,
            stopped=details.status == JobStatus.STOPPED,
            exit_code=details.driver_exit_code,
            message=details.message or "",
        )


class _Client(JobSubmissionClient):
    """Ray's client, which would wait for ever where a connection is taken and nothing is said."""

    def _do_request(self, method: str, endpoint: str, **arguments: Any) -> Any:
        answer_s = REQUEST_S if method == "GET" else HANDOVER_S
        return super()._do_request(method, endpoint, timeout=(REQUEST_S, answer_s), **arguments)

    @property
    def server_version(self) -> str:
        return str(self._do_request("GET", "/api/version").json()["ray_version"])


def _connect(address: str) -> _Client:
    _check_address(address)
    token = _token_headers()
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with _without(RAY_ADDRESSES):
            client = _Client(address, headers=token)
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


class _Following:
    """One job, followed over a stream that may break and be opened again."""

    def __init__(self, client: _Client, job: str, write: Write) -> None:
        self._client, self._job, self._write = client, job, write
        self._num_written = 0
        self._heard = time.monotonic()

    async def until_it_ends(self) -> JobDetails:
        while True:
            stream = self._client.tail_job_logs(self._job)
            try:
                await self._pass_on(stream)
                details = await self._details()
                if details.status.is_terminal():
                    return details
            except UNREACHABLE as error:
                self._give_up_in_time(error)
            await asyncio.sleep(CHECK_S)

    async def _pass_on(self, stream: AsyncIterator[str]) -> None:
        """Write what is new of a stream, which begins with the job's first line, until it ends or nothing answers."""
        num_seen, is_over = 0, False
        following = asyncio.ensure_future(anext(stream, None))
        try:
            while True:
                ended, _ = await asyncio.wait({following}, timeout=CHECK_S)
                if not ended:  # A link that was cut says nothing, for ever. A job's last words come seconds after it.
                    if is_over:
                        return
                    is_over = (await self._details()).status.is_terminal()
                    continue
                text = following.result()
                self._heard = time.monotonic()
                if text is None:
                    return
                new = text[max(self._num_written - num_seen, 0) :]
                num_seen += len(text)
                if new:
                    self._write(new)
                    self._num_written = num_seen
                following = asyncio.ensure_future(anext(stream, None))
        finally:
            following.cancel()

    async def _details(self) -> JobDetails:
        details = await asyncio.to_thread(self._client.get_job_info, self._job)
        self._heard = time.monotonic()
        return details

    def _give_up_in_time(self, error: Exception) -> None:
        if time.monotonic() - self._heard > PATIENCE_S:
            raise RunFailed(
                f"{self._client.get_address()} has not answered for {PATIENCE_S:g} s, and job {self._job} may go on: "
                f"{first_line(error)}"
            ) from error
