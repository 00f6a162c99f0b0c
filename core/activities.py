"""What this process is doing: named while it lasts, and shown by whoever shows the run (`activities`)."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from plumbob.core.spans import spans


@dataclass(frozen=True)
class Activity:
    """Something that takes a while.

    Attributes:
        doing: such as "reading the data" or "rollout-0: starting its engine".
        began: of `time.monotonic`.
    """

    doing: str
    began: float


class Activities:
    """Those under way in all threads of this process; there is one, `activities`, as a display is the process's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_threads: dict[int, list[Activity]] = {}

    @contextmanager
    def during(self, doing: str) -> Iterator[None]:
        """The block, or the function that this decorates, is doing that; what is named within it is more precise."""
        thread, activity = threading.get_ident(), Activity(doing, time.monotonic())
        with self._lock:
            self._of_threads.setdefault(thread, []).append(activity)
        try:
            yield
        finally:
            with self._lock:
                self._of_threads[thread].remove(activity)
                if not self._of_threads[thread]:
                    del self._of_threads[thread]
            spans.record_here(doing, activity.began)

    def now(self) -> tuple[Activity, ...]:
        """Of each thread the innermost, the oldest first."""
        with self._lock:
            innermost = [stack[-1] for stack in self._of_threads.values()]
        return tuple(sorted(innermost, key=lambda activity: activity.began))


activities = Activities()
