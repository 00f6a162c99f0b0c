"""Workers that were lost, and how many may be."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable

from configs.errors import RunFailed

NO_MEMORY_S = 5.0
"""How long a host is left alone that had no memory left: while that is so, Ray kills whoever starts there."""


class WorkerLost(RunFailed):
    """A worker died, its host went away, or it did not answer in time; another could do its work.

    Args:
        oom_killed: the name of the worker that Ray killed because its host had no memory left, where that is how.
    """

    def __init__(self, message: str, oom_killed: str | None = None) -> None:
        super().__init__(message)
        self.oom_killed = oom_killed


class WorkerFailed(RunFailed):
    """A worker raised what nobody foresaw. It lives; another may fare better."""


class UnfitHost(WorkerLost):
    """A worker could not begin on its host, where others of its kind could on theirs."""


class LearnersLost(WorkerLost):
    """A learner rank was lost, and with it the group: what the others hold has to be read from a checkpoint again."""


class Restarts:
    """Counts lost workers against `cluster.max_restarts`: how often one place may be filled again within a step.

    A place is one worker and those that replace it: a host that dies with all its workers costs each of them one.

    Attributes:
        total: workers lost since the run began.
    """

    def __init__(self, limit: int) -> None:
        self.total = 0
        self._limit = limit
        self._since_step: Counter[str] = Counter()
        self._furthest: dict[str, int] = {}

    def spend(self, lost: WorkerLost, place: str, said: Callable[[str], None]) -> None:
        """Say that another worker is started in the place of a lost one.

        Raises:
            RunFailed: too many were lost there since the last step.
        """
        self.total += 1
        self._since_step[place] += 1
        count = self._since_step[place]
        if count > self._limit:
            raise RunFailed(
                f"{lost}\nthat is worker number {count} to be lost in its place since the last step, and "
                f"cluster.max_restarts={self._limit}"
            ) from lost
        reason = str(lost).splitlines()[0]
        said(f"{reason}; it is replaced ({count} of {self._limit} since the last step)")

    def stepped(self, stage: str, step: int) -> None:
        """A step has ended: what it cost is forgotten, unless it was made before and has been made again."""
        if step > self._furthest.get(stage, -1):
            self._furthest[stage] = step
            self._since_step.clear()


class UnfitHosts:
    """Hosts where a worker could not begin, twice within `for_s`: they are left alone until that is over."""

    def __init__(self, for_s: float) -> None:
        self._for_s = for_s
        self._failed: dict[str, list[float]] = defaultdict(list)

    def failed(self, node_id: str) -> None:
        self._failed[node_id].append(time.monotonic())

    def now(self) -> set[str]:
        """Their nodes' ids."""
        since = time.monotonic() - self._for_s
        return {node_id for node_id, times in self._failed.items() if sum(at > since for at in times) > 1}
