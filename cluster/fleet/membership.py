"""The members of a pool: workers with what they are at, and what a pool asks of the session around it."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from plumbob.cluster.calls import Actor, has_ended, last_lines
from plumbob.cluster.failures import WorkerLost
from plumbob.cluster.fleet.reservations import Reservation
from plumbob.cluster.fleet.work_queue import Preparation, Task
from plumbob.cluster.run_status import WorkerRow


@dataclass(eq=False)
class Member:
    """A worker of the pool. It has at most one call under way.

    Attributes:
        place: its number among the members that are there; its replacement has the same.
        num_items: how many it has done.
    """

    actor: Actor
    seat: Reservation
    place: int = 0
    task: Task | None = None
    opened: Preparation | None = None
    loaded: Preparation | None = None
    num_items: int = 0
    is_leaving: bool = False

    def row(self) -> WorkerRow:
        """For people."""
        task = self.task  # Another thread may end it meanwhile.
        state = "leaving" if self.is_leaving else "idle" if task is None else task.what.doing
        return WorkerRow(self.actor.name, self.seat.host.address, state, self.num_items)


@dataclass(frozen=True)
class PoolHost:
    """What a pool asks of the session that it belongs to.

    Attributes:
        hire: a new actor on a free seat; None when no host has room.
        dismiss: ends actors and frees their seats; whether they were lost.
        lost: called for each member that is lost, with the number of items that go to another; raises RunFailed when
            there were too many.
        make_room: asks others to go who sit where one of these could, when nobody is left.
        lacking: says why there is no room for one.
        attend: called while work is waited for, and before it.
        said: tells whoever watches.
        is_to_leave: whether the member's host will be taken away.
        max_restarts: how many members one chunk may cost; one more ends the run.
    """

    hire: Callable[[], Member | None]
    dismiss: Callable[[Sequence[Member], bool], None]
    lost: Callable[[Member, WorkerLost, int], None]
    make_room: Callable[[], None]
    lacking: Callable[[], str]
    attend: Callable[[], None]
    said: Callable[[str], None]
    is_to_leave: Callable[[Member], bool]
    max_restarts: int


def loss_of(member: Member, alive: Collection[str], bound_s: float, setting: str) -> WorkerLost | None:
    """What a member is lost by whose host is gone, or that has been at one call for too long; None where neither is so.

    A call that has ended is never too late: between two jobs nobody looks at the members.

    Args:
        alive: ids of the living nodes.
        bound_s, setting: of the call that it is at, and the key that says so.
    """
    task, name = member.task, member.actor.name
    if member.seat.host.node_id not in alive:
        was = "" if task is None else f" while it was {task.what.doing}"
        reason = f"{name}: its host {member.seat.host.address} is gone{was}"
    elif task is not None and time.monotonic() - task.began > bound_s and not has_ended(task.result):
        reason = f"{name}: still {task.what.doing} after {bound_s:.0f} s ({setting})"
    else:
        return None
    return WorkerLost(f"{reason}\n{last_lines(member.actor.log)}")
