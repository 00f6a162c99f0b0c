"""Peak memory of a run's learner, watched from outside: the largest resident set of its process, in bytes."""

import threading
from types import TracebackType
from typing import Self

import psutil

POLL_S = 0.1
LEARNER = "ray::LearnerWorker"


class LearnerMemory:
    """`with LearnerMemory() as memory: run(); memory.peak` of the learners among this process's descendants."""

    def __init__(self) -> None:
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _poll(self) -> None:
        known: dict[int, psutil.Process] = {}
        while not self._done.wait(POLL_S):
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.pid not in known and any(LEARNER in part for part in process.cmdline()):
                        known[process.pid] = process
                    if process.pid in known:
                        self.peak = max(self.peak, process.memory_info().rss)
                except psutil.Error:
                    continue
