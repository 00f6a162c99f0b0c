"""Peak memory of a run on this host: the summed PSS of the driver and every process below it."""

import threading
from typing import Self

import psutil

GIB = 2**30


class PeakMemory:
    """Samples in the background; `take` gives the peak since the last one.

    PSS divides shared pages among those who share them, so that the sum over processes counts nothing twice.
    Processes on other hosts of a cluster are not seen.
    """

    def __init__(self, interval_s: float = 0.5) -> None:
        self._interval_s = interval_s
        self._peak = 0
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
        peak = max(self._peak, summed_pss())
        self._peak = 0
        return peak / GIB

    def _watch(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._peak = max(self._peak, summed_pss())


def summed_pss() -> int:
    """Bytes of this process and its descendants; one that ends while it is read counts as nothing."""
    own = psutil.Process()
    total = 0
    for process in [own, *own.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total
