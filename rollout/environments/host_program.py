"""The process that imports an environment once, and forks a process for each episode: nothing of one touches another.

    worker             owns; sees it through `environment_host`
      host             this program: one thread, which waits, and never calls the user's class
        episode        a fork: leads a session of its own, bounded in memory, ended with the host
        episode        ...

It reads its specification from its standard input. Then messages come on a socket that keeps them whole: `{"open": N}`
with the socket of the episode, `{"end": N}` (it has closed its socket, and may take a while), `{"kill": N}`. It answers
`{"opened": N, "pid"}` and, whatever an episode's process ended by, `{"ended": N, "how", "printed"}`. Linux alone.
"""

import ctypes
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbob.core.programs.users_code import MAX_LINE, Refused, limit, users_lines
from plumbob.rollout.environments import users_environment
from plumbob.rollout.environments.episode_program import EpisodeProgram, ToolCalls
from plumbob.rollout.environments.process_trees import children_of, descendants_of, end_trees

MAX_PROCESSES = 64
"""Of one episode, beside its own."""

TICK_S = 0.25
"""How often they are counted, and how long one that ended unseen is not noticed at most."""

CLOSE_S = 5.0
"""What an episode may take to close after its end."""

KEPT_BYTES, KEPT_LINES = 4096, 12
"""Of what an episode printed."""

MAX_MESSAGE = 65_536
PDEATHSIG, CHILD_SUBREAPER = 1, 36

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """`argv`: the descriptor of the socket."""
    control = socket.socket(fileno=int(sys.argv[1]))
    spec = json.loads(sys.stdin.buffer.read())
    try:
        make, tool_calls = users_environment.load_environment(spec)
    except Refused as error:
        answer: dict[str, Any] = {"refused": str(error), "detail": []}
    except BaseException as error:
        answer = {
            "refused": "cannot be imported",
            "detail": users_lines(error, __file__, users_environment.__file__),
        }
    else:
        answer = {"ready": True}
    control.send(json.dumps(answer).encode())
    if "ready" in answer:
        EpisodeForks(control, make, tool_calls, spec["memory_bytes"]).run()


@dataclass
class EpisodeFork:
    """A process of an episode's.

    Attributes:
        output: what it prints comes from here; None once that is closed.
        printed: the end of that.
        until: when it is ended, by the monotonic clock.
        why: for what it was ended, where that is not as it was asked to.
    """

    number: int
    pid: int
    output: int | None
    printed: bytes = b""
    until: float = float("inf")
    why: str = ""

    def read(self) -> None:
        """What there is of what it printed; a little at a time, so that one that floods stops no other."""
        assert self.output is not None
        with suppress(BlockingIOError):
            content = os.read(self.output, MAX_MESSAGE)
            self.printed = (self.printed + content)[-KEPT_BYTES:]
            if not content:
                self.close()

    def close(self) -> None:
        assert self.output is not None
        os.close(self.output)
        self.output = None


class EpisodeForks:
    """Forks, watches and ends the processes of episodes, until the worker has gone."""

    def __init__(
        self,
        control: socket.socket,
        make: Callable[[], Any],
        tool_calls: ToolCalls | None,
        memory_bytes: int,
    ) -> None:
        self._control, self._make, self._tool_calls, self._memory_bytes = control, make, tool_calls, memory_bytes
        self._forks: dict[int, EpisodeFork] = {}
        self._unsent: list[bytes] = []
        self._pid = os.getpid()
        self._of_import = set(children_of(self._pid))
        self._woken, self._wake = os.pipe()

    def run(self) -> None:
        for file in (self._woken, self._wake):
            os.set_blocking(file, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        libc.prctl(CHILD_SUBREAPER, 1, 0, 0, 0)
        while self._take_requests():
            self._reap()
            self._end_orphans()
            self._watch()
            self._answer()
        end_trees(fork.pid for fork in self._forks.values())
        self._end_orphans()

    # --------------------------------------------------------------------------------------------- what is asked of it

    def _take_requests(self) -> bool:
        """Wait for a request, a print or an end, or for the next look. False once the worker has gone."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        poll.register(self._control, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        for output in self._outputs():
            poll.register(output, select.POLLIN)
        found = dict(poll.poll(TICK_S * 1000 if self._forks else None))
        with suppress(BlockingIOError):
            os.read(self._woken, MAX_MESSAGE)
        for fork in self._forks.values():
            if fork.output in found:
                fork.read()
        if not found.get(self._control.fileno(), 0) & (select.POLLIN | select.POLLHUP):
            return True
        content, channels = b"", list[int]()
        with suppress(ConnectionResetError):  # It has gone without having read all.
            content, channels, _, _ = socket.recv_fds(self._control, MAX_MESSAGE, 1)
        match json.loads(content) if content else None:
            case {"open": number} if channels:
                os.set_inheritable(channels[0], False)
                self._open(number, channels[0])
            case {"open": number}:
                self._say(ended=number, how="it could not be started: too many open files", printed=[])
            case {"end": number} if number in self._forks:
                self._forks[number].until = time.monotonic() + CLOSE_S
            case {"kill": number} if number in self._forks:
                self._forks[number].until = 0.0
        return bool(content)

    def _answer(self) -> None:
        while self._unsent:
            try:
                self._control.send(self._unsent[0], socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                self._unsent.clear()  # The worker has gone, which the next look tells.
                return
            self._unsent.pop(0)

    def _say(self, **message: Any) -> None:
        self._unsent.append(json.dumps(message).encode())

    # ------------------------------------------------------------------------------------------------------- episodes

    def _open(self, number: int, channel: int) -> None:
        reading, writing = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(reading)
            self._say(ended=number, how=f"it could not be started: {error.strerror}", printed=[])
        else:
            if pid == 0:
                try:
                    self._become_episode(number, channel, reading, writing)
                except BaseException:
                    sys.excepthook(*sys.exc_info())
                finally:
                    os._exit(1)
            os.set_blocking(reading, False)
            self._forks[number] = EpisodeFork(number, pid, reading)
            self._say(opened=number, pid=pid)
        for file in (channel, writing):
            os.close(file)

    def _become_episode(self, number: int, channel: int, reading: int, writing: int) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        libc.prctl(PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(CHILD_SUBREAPER, 1, 0, 0, 0)
        if os.getppid() != self._pid:
            return
        for file in (1, 2):
            os.dup2(writing, file)
        for file in (reading, writing, self._woken, self._wake, *self._outputs()):
            os.close(file)
        self._control.close()
        with suppress(OSError):  # Where memory is short, this is ended, not a run.
            Path("/proc/self/oom_score_adj").write_text("1000")
        limit(resource.RLIMIT_DATA, self._memory_bytes)
        limit(resource.RLIMIT_CORE, 0)
        tempfile.tempdir = os.environ["TMPDIR"] = self._scratch(number)
        Path(tempfile.tempdir).mkdir()
        EpisodeProgram(socket.socket(fileno=channel), self._make, self._tool_calls).serve()
        sys.stdout.flush()
        os._exit(0)

    def _outputs(self) -> list[int]:
        return [fork.output for fork in self._forks.values() if fork.output is not None]

    def _scratch(self, number: int) -> str:
        return f"{os.environ['TMPDIR']}/{number}"

    def _reap(self) -> None:
        """See which processes have ended. One is looked at before it is reaped, so that its id is still its own."""
        pids = {fork.pid: fork for fork in self._forks.values()}
        with suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                fork = pids.get(ended.si_pid)
                if fork is not None:
                    end_trees([fork.pid])
                _, status = os.waitpid(ended.si_pid, 0)
                if fork is not None:
                    self._ended(fork, os.waitstatus_to_exitcode(status))

    def _ended(self, fork: EpisodeFork, status: int) -> None:
        del self._forks[fork.number]
        if fork.output is not None:
            fork.read()
        if fork.output is not None:
            fork.close()
        shutil.rmtree(self._scratch(fork.number), ignore_errors=True)
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        printed = fork.printed.decode(errors="replace").splitlines()[-KEPT_LINES:]
        self._say(ended=fork.number, how=fork.why or how, printed=[line[:MAX_LINE] for line in printed])

    def _watch(self) -> None:
        """End the episodes whose time is over, or that have too many processes."""
        now = time.monotonic()
        for fork in self._forks.values():
            if now >= fork.until:
                end_trees([fork.pid])
            elif len(descendants_of(fork.pid, MAX_PROCESSES)) > MAX_PROCESSES:
                fork.why = f"as it had more than {MAX_PROCESSES} processes"
                end_trees([fork.pid])

    def _end_orphans(self) -> None:
        """Processes whose episode has ended become children of this one: it is their nearest ancestor that reaps."""
        known = self._of_import | {fork.pid for fork in self._forks.values()}
        end_trees(pid for pid in children_of(self._pid) if pid not in known)
