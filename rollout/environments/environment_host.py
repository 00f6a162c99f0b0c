"""A user's environment as its worker sees it (`EnvironmentHost`): a process that imports it, a process an episode."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NoReturn

from plumbob.configs.base import IsFunction
from plumbob.configs.schema import marked_texts
from plumbob.configs.settings.programs.environments import EnvironmentSettings
from plumbob.core.errors import UserError
from plumbob.core.process_ends.after_death import AfterDeath
from plumbob.core.programs.function_source import SOURCE_SUFFIX, changed_sources, source_digests, source_file
from plumbob.core.programs.process_environment import command_of, kept_environment, starting
from plumbob.rollout.environments import host_program
from plumbob.rollout.environments.environment_protocol import EnvironmentFailed
from plumbob.rollout.environments.episode import Episode, EpisodeEnd

SECTION = "rollout.environment."

START_TIMEOUT_S = 120.0
"""To start and to import the environment, whatever that imports."""

REQUEST_TIMEOUT_S = 10.0
"""For a request to be taken by the host, which never does anything long."""

EXIT_WAIT_S = 5.0
"""How long a process that was killed, or whose owner has gone, may take to be gone."""

MAX_MESSAGE = 65_536
HOST_ENDED = "its host's process ended"


class EnvironmentHost:
    """Opens episodes of one environment, many at once; all end with this object, and with this process.

    Args:
        quiet: what the import prints is not shown.

    Raises:
        UserError: the environment cannot be imported, is no class, or lacks a method.
    """

    def __init__(self, settings: EnvironmentSettings, quiet: bool = False) -> None:
        self._settings, self._quiet = settings, quiet
        self._digests = self._source_digests()
        self._num_opened = 0
        self._start()

    def open(self, row: Mapping[str, Any], seed: int) -> Episode:
        """An episode in a process of its own, which begins its `reset` meanwhile.

        Raises:
            EnvironmentFailed: its process cannot be started.
            UserError: the host's process had ended, and its source is another now.
        """
        self.look()
        if self._is_dead:
            self._restart()
        number, self._num_opened = self._num_opened, self._num_opened + 1
        ours, theirs = socket.socketpair()
        episode = self._episodes[number] = Episode(number, self._settings, ours, self)
        with theirs:
            if not self._send({"open": number}, theirs.fileno()):
                episode.close()
                raise EnvironmentFailed(f"{HOST_ENDED} {self._how_it_ended()}")
        episode.reset(row, seed)
        return episode

    def wait(self, episodes: Sequence[Episode], timeout_s: float) -> None:
        """Return when `poll` of any of them may give or raise something, or after that time."""
        waited = [episode for episode in episodes if not episode.is_closed]
        if not waited:
            return
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        for episode in waited:
            poll.register(episode, select.POLLIN | (select.POLLOUT if episode.is_sending else 0))
        until = min(episode.deadline for episode in waited)
        poll.poll(max(min(timeout_s, until - time.monotonic()), 0.0) * 1000)

    def close(self) -> None:
        self._end()

    @property
    def pid(self) -> int:
        """Of the process that forks the episodes'."""
        return self._process.pid

    # ------------------------------------------------------------------------------ as `EpisodeProcesses`, for episodes

    def look(self) -> None:
        """What the host has told meanwhile. Where it has died, what its episodes started is ended."""
        while not self._is_dead:
            try:
                content = self._control.recv(MAX_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                content = b""
            match json.loads(content) if content else None:
                case {"opened": number, "pid": pid}:
                    self._groups[number] = pid
                case {"ended": number, "how": how, "printed": printed}:
                    self._groups.pop(number, None)
                    self._set_end(number, EpisodeEnd(how, tuple(printed)))
                case _:
                    self._note_death()

    def request(self, what: Literal["end", "kill"], number: int) -> None:
        """Of an episode whose host has died there is nothing to ask."""
        self._send({what: number})

    def await_end(self, episode: Episode, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        self.look()
        while episode.end is None and not self._is_dead and time.monotonic() < deadline:
            poll.poll(max(deadline - time.monotonic(), 0.0) * 1000)
            self.look()

    # ------------------------------------------------------------------------------------------------------ its process

    def _note_death(self) -> None:
        """Of the host's: what its episodes started is ended, and each of them knows."""
        self._is_dead = True
        _kill_groups(self._groups.values())
        end = EpisodeEnd(f"{HOST_ENDED} {self._how_it_ended()}", ())
        for number in list(self._episodes):
            self._set_end(number, end)

    def _set_end(self, number: int, end: EpisodeEnd) -> None:
        episode = self._episodes.get(number)
        if episode is not None and episode.end is None:
            episode.end = end

    def _send(self, request: Mapping[str, int], *files: int) -> bool:
        """Whether the host has taken the request."""
        poll = select.poll()
        poll.register(self._control, select.POLLOUT)
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while not self._is_dead and time.monotonic() < deadline:
            poll.poll(REQUEST_TIMEOUT_S * 1000)
            try:
                content = json.dumps(request).encode()
                socket.send_fds(self._control, [content], files) if files else self._control.send(content)
                return True
            except BlockingIOError:
                continue
            except OSError:
                break
        if not self._is_dead:
            self._note_death()
        return False

    def _how_it_ended(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            status = self._process.wait(EXIT_WAIT_S)
            return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return "as it takes no request"

    def _start(self) -> None:
        settings, code = self._settings, f"{SECTION}source={self._settings.source}"
        self._is_dead = False
        self._episodes: weakref.WeakValueDictionary[int, Episode] = weakref.WeakValueDictionary()
        self._groups: dict[int, int] = {}
        with starting(code, "plumbob-environment-") as scratch:
            variables = kept_environment(code, f"{SECTION}variables", settings.variables)
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._control.setblocking(False)
            with theirs, _specification(settings) as given:
                self._process = subprocess.Popen(
                    [*command_of(host_program.__name__), str(theirs.fileno())],
                    stdin=given,
                    stdout=subprocess.DEVNULL if self._quiet else 2,  # What it prints is for the log.
                    stderr=subprocess.DEVNULL if self._quiet else None,
                    pass_fds=(theirs.fileno(),),
                    cwd=source_file(settings.source).parent,
                    env={**variables, "TMPDIR": str(scratch), "PYTHONHASHSEED": "0"},
                    start_new_session=True,
                )
            after_death = AfterDeath([self._process.pid], scratch, EXIT_WAIT_S)
            self._end = weakref.finalize(self, _end, self._process, self._control, after_death, scratch)
        self._check_begin()

    def _check_begin(self) -> None:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        if not poll.poll(START_TIMEOUT_S * 1000):
            self._refuse(f"its import takes more than {START_TIMEOUT_S:g} s")
        try:
            content = self._control.recv(MAX_MESSAGE)
        except OSError:
            content = b""
        match json.loads(content) if content else None:
            case {"ready": True}:
                return
            case {"refused": str(why), "detail": list(detail)}:
                self._refuse("\n".join([why, *(f"  {line}" for line in detail)]))
            case _:
                self._refuse(f"its process ended as it was imported, {self._how_it_ended()}")

    def _refuse(self, why: str) -> NoReturn:
        self._end()
        raise UserError(f"{SECTION}source={self._settings.source}: {why}")

    def _restart(self) -> None:
        self._end()
        for source in changed_sources(self._source_digests(), self._digests):
            raise UserError(
                f"{SECTION}source={source}: it has changed since the run began, and its process must be started again: "
                f"put it back and resume, or start a new run"
            )
        self._start()

    def _source_digests(self) -> dict[str, str]:
        return source_digests(marked_texts(self._settings, IsFunction, SECTION))


@contextmanager
def _specification(settings: EnvironmentSettings) -> Iterator[int]:
    """What the host's process reads first, as a file in memory that stands at its beginning."""
    calls = settings.tool_calls
    content = {
        **dict(zip(("place", "name"), _place(settings.source), strict=True)),
        "arguments": settings.arguments,
        "tool_calls": None if calls in ("template", "none") else _place(calls),
        "memory_bytes": int(settings.memory_gib * 2**30),
    }
    file = os.memfd_create("plumbob")
    try:
        os.pwrite(file, json.dumps(content).encode(), 0)
        yield file
    finally:
        os.close(file)


def _place(source: str) -> tuple[str, str]:
    """(file by its absolute path, or module; name)."""
    place, _, name = source.rpartition(":")
    return (str(source_file(source)) if place.endswith(SOURCE_SUFFIX) else place), name


def _kill_groups(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def _end(process: "subprocess.Popen[bytes]", control: socket.socket, after_death: AfterDeath, scratch: Path) -> None:
    """The host sees its socket's end, and ends all episodes and itself; else it is killed."""
    control.close()
    try:
        process.wait(EXIT_WAIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(EXIT_WAIT_S)
    after_death.cancel()
    shutil.rmtree(scratch, ignore_errors=True)
