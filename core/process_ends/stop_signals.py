"""SIGTERM and SIGHUP: the first asks the run to stop where little is lost, the second ends the process at once."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from plumbob.core.errors import RunPreempted

SIGNALS = (signal.SIGTERM, signal.SIGHUP)

STDOUT, STDERR = 1, 2

AGAIN_S = 1.0
"""Signals closer together are one: `timeout` signals the process and then its group, as the kernel and a shell do."""


class StopSignals:
    """What the signals of this process ask of the run in it; there is one, `stop_signals`, as they are the process's.

        boot                  work                            boot of the next stage
        |-- ends at once ----|-- noted: the step is ended ---|-- ends at once ---- ...
                             work_began()                    work_ended()

    Where nothing is lost the first signal ends the run like Ctrl-C: Python's and Ray's waits are left by
    KeyboardInterrupt alone. While the run works it is noted, and `check` raises when the run asks. Either way what
    leaves `handled` is RunPreempted. The second signal is what it would have been without us: the process's death.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._received_at = 0.0
        self._is_handling = False
        self._is_working = False
        self._notice = ""
        self._terminals: list[int] = []

    @contextmanager
    def handled(self, notice: str) -> Iterator[None]:
        """Take the signals until the block ends. In another thread than the main one, which alone can, it does nothing.

        A signal that is ignored, as `nohup` has SIGHUP ignored, stays so.

        Args:
            notice: what a user is told when the first arrives while the run works, after the signal's name.

        Raises:
            RunPreempted: one arrived.
        """
        if self._is_handling or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self._received, self._is_working, self._is_handling, self._notice = None, False, True, notice
        self._taken = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]
        self._terminals = [stream for stream in (STDOUT, STDERR) if os.isatty(stream)]
        self.put_back()
        try:
            yield
        except KeyboardInterrupt:
            self.check()
            raise
        finally:
            self._received, self._is_handling = None, False
            for number in self._taken:
                signal.signal(number, before[number])

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep signals waiting while a library starts that puts its own handlers in place; then ours are there again.

        Processes that are started meanwhile hold them too, unless they let them go themselves. A signal that reaches
        another thread while the handler is still ours is noted.

        Raises:
            RunPreempted: one arrived.
        """
        if not self._is_handling:
            yield
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._taken)
        was_working, self._is_working = self._is_working, True
        try:
            yield
        finally:
            self.put_back()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._is_working = was_working
        self.check()

    def put_back(self) -> None:
        for number in self._taken:
            signal.signal(number, self._on_signal)

    @property
    def warning(self) -> str | None:
        """What a user is told of the signal that has arrived, until the run ends by it; None while there was none."""
        return None if self._received is None else f"{self._received.name}: {self._notice}"

    def work_began(self) -> None:
        """From here on something would be lost."""
        self._is_working = True

    def work_ended(self) -> None:
        """From here on nothing would be. Raises RunPreempted when a signal has arrived."""
        self.check()
        self._is_working = False
        self.check()

    def check(self) -> None:
        """Raises RunPreempted when a signal has arrived."""
        if self._received is not None:
            raise RunPreempted(f"{self._received.name}: the run was asked to stop")

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._received is not None and time.monotonic() - self._received_at < AGAIN_S:
            return
        if self._received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._received, self._received_at = signal.Signals(number), time.monotonic()
        if number == signal.SIGHUP:
            self._leave_terminals()
        if not self._is_working:
            raise KeyboardInterrupt
        with suppress(OSError):  # Written past Python's streams, in whose middle a signal may arrive.
            os.write(STDERR, f"plumbob: {self.warning}\n".encode())

    def _leave_terminals(self) -> None:
        """What is printed to a terminal that has gone would be an error at every line."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in self._terminals:
            os.dup2(nowhere, stream)
        os.close(nowhere)


stop_signals = StopSignals()
