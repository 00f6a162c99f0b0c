"""Restart budget: how many workers may be lost in one slot between two steps (RestartBudget)."""

from collections import Counter

from plumbob.cluster.failures import WorkerLost
from plumbob.cluster.fleet.recovery.crashes import RepeatedCrashes
from plumbob.core.errors import RunFailed


class RestartBudget:
    """Counts lost workers against `cluster.max_restarts`: how often one slot may be filled again within a step.

    A slot is one worker and those that replace it: a host that dies with all its workers costs each of them one.

    Attributes:
        total: workers lost since the run began.
    """

    def __init__(self, limit: int) -> None:
        self.total = 0
        self._limit = limit
        self._since_step: Counter[str] = Counter()
        self._newest_step: dict[str, int] = {}
        self._crashes = RepeatedCrashes()

    def record_loss(self, lost: WorkerLost, slot: str) -> str:
        """Count a loss for which another worker is started; a message that says so.

        Args:
            slot: the role, and which of its workers where they are replaced one by one: "rollout 3", "learners".

        Raises:
            RunFailed: too many were lost in that slot since the last step; or it crashed as one of its role did before.
        """
        self.total += 1
        self._crashes.record(lost, slot.partition(" ")[0].removesuffix("s"))
        self._since_step[slot] += 1
        count = self._since_step[slot]
        if count > self._limit:
            raise RunFailed(
                f"{lost}\nthat is worker number {count} to be lost in its slot since the last step, and "
                f"cluster.max_restarts={self._limit}"
            ) from lost
        return f"{str(lost).splitlines()[0]}; it is replaced ({count} of {self._limit} since the last step)"

    def stepped(self, stage: str, step: int) -> None:
        """A step has ended: what it cost is forgotten, unless it was made before and has been made again."""
        if step > self._newest_step.get(stage, -1):
            self._newest_step[stage] = step
            self._since_step.clear()
            self._crashes.forgive()
