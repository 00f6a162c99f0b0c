"""A member of a pool (Member), what is known of all at one time (PoolSnapshot), and why one is lost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from plumbob.cluster.calls import Actor
from plumbob.cluster.fleet.reservations import Reservation
from plumbob.cluster.fleet.work_queue import Preparation, Task
from plumbob.cluster.run_status import WorkerStatus


@dataclass(eq=False)
class Member:
    """A worker of the pool. It has at most one call under way.

    Attributes:
        slot: its number among the members that are there; its replacement has the same.
        opened_with, loaded_with: the preparations that it has behind it.
        num_items: how many it has done.
        is_draining: it ends what it is doing and takes no more.
        is_replacement: it is in the place of one that was lost.
    """

    actor: Actor
    reservation: Reservation
    slot: int = 0
    task: Task | None = None
    opened_with: Preparation | None = None
    loaded_with: Preparation | None = None
    num_items: int = 0
    is_draining: bool = False
    is_replacement: bool = False

    @property
    def node_id(self) -> str:
        return self.reservation.host.node_id

    def status(self) -> WorkerStatus:
        """For people."""
        task = self.task  # Another thread may end it meanwhile.
        state = "draining" if self.is_draining else "idle" if task is None else task.work.doing
        return WorkerStatus(self.actor.name, self.reservation.host.address, state, self.num_items)


@dataclass(frozen=True)
class PoolSnapshot:
    """What is known of a pool's workers at one time, so that a rule has to ask nobody.

    Attributes:
        time_s: of the monotonic clock.
        living_nodes: ids of the nodes that Ray takes for alive.
        ended: results of calls that have ended, whether anybody has looked at them or not.
    """

    time_s: float
    living_nodes: frozenset[str]
    ended: frozenset[Any]


@dataclass(frozen=True)
class WorkerLossReason:
    """Why a member is given up as lost, and replaced.

    Attributes:
        reason: a line for people, with the member's name.
    """

    reason: str


WorkerLossRule = Callable[[Member, PoolSnapshot], WorkerLossReason | None]
"""Pure: (member, snapshot) -> why it is lost, None where the rule does not hold."""
