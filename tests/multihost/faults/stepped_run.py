"""A run that stops at breakpoints (SteppedRun), so that a fault can be injected at one of them."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

from tests.multihost.faults import driver
from tests.multihost.hosts import PYTHON, SimulatedHost
from tests.multihost.namespaces import NamespacedCommand
from tests.support.small_run import settings

STUCK_S = 300.0
"""How long nothing may be heard of a run on a busy machine; the longest silence is the boot of all workers."""

POLL_S = 0.1


class RunEndedError(Exception):
    """The run has ended where it should have continued, or says nothing any more; the message has its last words."""


@dataclass(frozen=True)
class Breakpoint:
    """The beginning of a phase of a 1-based step; `rename` lies within a commit, when its files are written."""

    step: int
    phase: str


class SteppedRun:
    """A run of PPO whose driver waits at each breakpoint.

    Args:
        log: of what the driver prints for people, on the machine.

    Attributes:
        held: the breakpoint that it waits at.
        last_step: it runs through this step, and waits before the next.
        said: all messages of the run, across its drivers.
        done: step -> when the version that it made was first out, in seconds of which none are those that it was held.
        status: the driver's exit status; None while it runs.
    """

    def __init__(self, host: SimulatedHost, folder: Path, log: Path) -> None:
        self.folder = folder
        self.held: Breakpoint | None = None
        self.last_step = 0
        self.said: list[str] = []
        self.done: dict[int, float] = {}
        self.status: int | None = None
        self._host, self._log = host, log
        self._held_at, self._held_s = 0.0, 0.0

    # --------------------------------------------------------------------------------------------------------- drivers

    def start(self, *groups: Mapping[str, object]) -> None:
        place = {"storage.path": self.folder.parent, "name": self.folder.name}
        self._begin("run", "ppo", *settings(place, *groups))

    def resume(self) -> None:
        self._begin("resume", str(self.folder))

    def _begin(self, *arguments: str) -> None:
        self.held, self.status = None, None
        self._said_from = self._log.stat().st_size if self._log.exists() else 0
        self._events: Queue[dict[str, Any] | None] = Queue()
        with self._log.open("a") as log:
            self._process = self._host.popen(
                [str(PYTHON), "-m", driver.__name__, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        Thread(target=read_events, args=(self._process, self._events), daemon=True).start()

    def run_to_end(self) -> None:
        """Raises RunEndedError when it ends with another status than 0."""
        self.last_step = sys.maxsize
        self.await_end()
        if self.status != 0:
            self._is_over()

    def kill(self) -> None:
        """Kill the driver, if it runs, and hear all that it said before."""
        self._no_longer_held()
        self._process.send_signal(signal.SIGKILL)
        self.await_end()

    def await_end(self) -> None:
        self.run_until(lambda: self.status is not None)

    @property
    def last_words(self) -> str:
        """What this driver printed for people."""
        return self._log.read_text()[self._said_from :]

    # --------------------------------------------------------------------------------------------------------- leading

    def release(self) -> None:
        """Let it continue from where it waits."""
        self._no_longer_held()
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Let it pass all breakpoints, up to the end of `last_step`, until the condition holds.

        Raises:
            RunEndedError: nothing was heard of the run for too long.
        """
        heard_at = time.monotonic()
        while not condition():
            if self.held is not None and self.held.step <= self.last_step:
                self.release()
            if self._hear(POLL_S):
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > STUCK_S:
                raise RunEndedError(f"nothing was heard of {self.folder.name} for {STUCK_S:g} s")

    def run_to(self, point: Breakpoint) -> None:
        """Let it wait there."""
        self.last_step = point.step
        self.run_until(lambda: self.held == point or self._is_over())

    def run_past(self, step: int) -> None:
        """Until that step has been done."""
        self.last_step = step
        self.run_until(lambda: step in self.done or self._is_over())

    def listen(self, seconds: float) -> None:
        """Wait so long, or until it waits at another breakpoint."""
        end = time.monotonic() + seconds
        while self.held is None and time.monotonic() < end:
            self._hear(max(0.0, end - time.monotonic()))

    def forget_from(self, step: int) -> None:
        """What is done from that step on counts anew."""
        self.done = {number: when for number, when in self.done.items() if number < step}

    def _no_longer_held(self) -> None:
        if self.held is not None:
            self.held = None
            self._held_s += time.monotonic() - self._held_at

    def _is_over(self) -> bool:
        if self.status is not None:
            raise RunEndedError(f"{self.folder.name} ended with status {self.status}:\n{self.last_words}")
        return False

    def _hear(self, timeout_s: float) -> bool:
        """Take one event in; whether there was one."""
        try:
            event = self._events.get(timeout=timeout_s)
        except Empty:
            return False
        match event:
            case None:
                self._no_longer_held()
                self.status = self._process.wait()
            case {"event": "reached"}:
                self.held, self._held_at = Breakpoint(event["step"], event["phase"]), time.monotonic()
            case {"event": "left", "phase": "publish"}:
                self.done.setdefault(event["step"], time.monotonic() - self._held_s)
            case {"event": "stray"}:
                raise RunEndedError(f"--json printed: {event['line']}")
            case {"event": "message"}:
                self.said.append(event["message"])
        return True


def read_events(process: NamespacedCommand, events: "Queue[dict[str, Any] | None]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        try:
            events.put(json.loads(line))
        except ValueError:
            events.put({"event": "stray", "line": line})
    events.put(None)
