"""Peak memory of a run on this host: the summed PSS of the driver and every process below it."""

import threading
from collections.abc import Callable
from typing import Self

import psutil

GIB = 2**30
NEW_PEAK = 1.01
"""The PSS, for which Linux walks all pages, is read where the summed RSS is by so much higher than it has been."""
LOOKS_PER_LISTING = 8
"""How often the processes are looked at before they are listed anew."""


class PeakMemory:
    """Looks in the background; `take` gives the peak since the last one.

    PSS divides shared pages among those who share them, so that the sum over processes counts nothing twice. It is at
    its highest where the RSS is, which costs little to read.
    Processes on other hosts of a cluster are not seen.
    """

    def __init__(self, interval_s: float = 0.5) -> None:
        self._interval_s = interval_s
        self._peak, self._highest_rss, self._num_looks = 0, 0.0, 0
        self._processes: list[psutil.Process] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def take(self) -> float:
        """Peak in GiB since the last call, the present included."""
        peak = max(self._peak, summed_pss(listed()))
        self._peak, self._highest_rss = 0, 0.0
        return peak / GIB

    def _watch(self) -> None:
        while not self._stop.wait(self._interval_s):
            if self._num_looks % LOOKS_PER_LISTING == 0:
                self._processes = listed()
            self._num_looks += 1
            rss = summed(lambda process: process.memory_info().rss, self._processes)
            if rss > NEW_PEAK * self._highest_rss:
                self._highest_rss, self._peak = rss, max(self._peak, summed_pss(self._processes))


def listed() -> list[psutil.Process]:
    """This process and its descendants."""
    own = psutil.Process()
    return [own, *own.children(recursive=True)]


def summed_pss(processes: list[psutil.Process]) -> int:
    """Bytes."""
    return summed(lambda process: process.memory_full_info().pss, processes)


def summed(size: Callable[[psutil.Process], int], processes: list[psutil.Process]) -> int:
    """Over all; one that has ended, or ends while it is read, counts as nothing."""
    total = 0
    for process in processes:
        try:
            total += size(process)
        except psutil.Error:
            continue
    return total
