"""Workers that were lost, and how many may be."""

from collections import Counter
from collections.abc import Callable

from plumbob.cluster.failures import WorkerLost
from plumbob.core.errors import RunFailed


class RestartBudget:
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
