"""Sends a run to a cluster as a Ray job, and follows what it prints. Every request has a bound."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from ray.job_submission import JobDetails, JobStatus

from plumbob.cluster.launchers.dashboard import UNREACHABLE, DashboardClient, connect_dashboard, ray_command
from plumbob.cluster.launchers.job_files import entrypoint, write_job
from plumbob.cluster.launchers.launcher import LauncherOption
from plumbob.configs.runs import AnyRun
from plumbob.core.errors import RunFailed, first_line

OPTIONS = (
    LauncherOption("--no-wait", "do not follow what the run prints"),
    LauncherOption("--with-source", "send Plumbob itself too: the hosts lack it"),
    LauncherOption("--resume", "resume the run of that name, if it has begun"),
)

CHECK_S = 5.0
"""While a job prints nothing: how often it is asked for."""

STOP_WAIT_S = 600
"""How long a job that is stopped may take to end its step and save, before Ray kills it; Ray's own is 3 s."""

PATIENCE_S = 60.0
"""How long the dashboard may be out of reach before following a job is given up."""

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
        self._client = connect_dashboard(self.address)

    def submit(self, config: AnyRun, with_source: bool, resumes: bool, as_json: bool) -> str:
        """Start a run on the head, or resume it if it `resumes` and has begun; its job's id."""
        with tempfile.TemporaryDirectory(prefix="plumbob-") as folder:
            write_job(config, Path(folder), with_source)
            try:
                job: str = self._client.submit_job(
                    entrypoint=entrypoint(with_source, resumes, as_json),
                    runtime_env={"working_dir": folder, "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}},
                    metadata={"plumbob_run": config.name},
                )
            except UNREACHABLE as error:
                raise RunFailed(
                    f"{self.address} did not confirm that the job has started: {first_line(error)}; whether it has: "
                    f"{ray_command('job', 'list', '--address', self.address)}"
                ) from error
        return job

    def command(self, job: str, *words: str) -> str:
        """`ray job WORDS` about a job, for a user to paste."""
        return ray_command("job", *words, "--address", self.address, job)

    def follow(self, job: str, write: Write) -> Ended:
        """Pass on what the job prints until it has ended; how it ended.

        Raises:
            RunFailed: the dashboard could not be reached for a minute; the job may still be running.
        """
        details = asyncio.run(_Following(self._client, job, write).until_it_ends())
        return Ended(
            job=job,
            succeeded=details.status == JobStatus.SUCCEEDED,
            stopped=details.status == JobStatus.STOPPED,
            exit_code=details.driver_exit_code,
            message=details.message or "",
        )


class _Following:
    """One job, followed over a stream that may break and be opened again."""

    def __init__(self, client: DashboardClient, job: str, write: Write) -> None:
        self._client, self._job, self._write = client, job, write
        self._num_written = 0
        self._answered_at = time.monotonic()

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
                self._answered_at = time.monotonic()
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
        self._answered_at = time.monotonic()
        return details

    def _give_up_in_time(self, error: Exception) -> None:
        if time.monotonic() - self._answered_at > PATIENCE_S:
            raise RunFailed(
                f"{self._client.get_address()} has not answered for {PATIENCE_S:g} s, and job {self._job} may still be "
                f"running: {first_line(error)}"
            ) from error
