"""Workers that were lost, and how many may be."""

from collections.abc import Callable

from configs.errors import RunFailed


class WorkerLost(RunFailed):
    """A worker died, its host went away, or it did not answer in time; another could do its work."""


class WorkerFailed(RunFailed):
    """A worker raised what nobody foresaw. It lives, and would do it again."""


class UnfitHost(WorkerLost):
    """A worker could not begin on its host, where others of its kind could on theirs."""


class LearnersLost(WorkerLost):
    """A learner rank was lost, and with it the group: what the others hold has to be read from a checkpoint again."""


class Restarts:
    """Counts lost workers against `cluster.max_restarts`, which is what one step may cost.

    Attributes:
        total: workers lost since the run began.
    """

    def __init__(self, limit: int) -> None:
        self.total = 0
        self._limit, self._since_step = limit, 0

    def spend(self, lost: WorkerLost, said: Callable[[str], None]) -> None:
        """Say that another worker is started in the place of a lost one.

        Raises:
            RunFailed: too many were lost since the last step.
        """
        self.total += 1
        self._since_step += 1
        if self._since_step > self._limit:
            raise RunFailed(
                f"{lost}\nthat is worker number {self._since_step} to be lost since the last step, and "
                f"cluster.max_restarts={self._limit}"
            ) from lost
        reason = str(lost).splitlines()[0]
        said(f"{reason}; it is replaced ({self._since_step} of {self._limit} since the last step)")

    def stepped(self) -> None:
        """A step has ended: what it cost is forgotten."""
        self._since_step = 0
