"""The members of a pool: workers with what they are at, and what a pool asks of the session around it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.health import Actor
from cluster.restarts import WorkerLost
from cluster.seats import Seat
from cluster.work import Preparation, Task


@dataclass(eq=False)
class Member:
    """A worker of the pool. It has at most one call under way.

    Attributes:
        place: its number among the members that are there; its replacement has the same.
        num_items: how many it has done.
    """

    actor: Actor
    seat: Seat
    place: int = 0
    task: Task | None = None
    opened: Preparation | None = None
    loaded: Preparation | None = None
    num_items: int = 0
    is_leaving: bool = False


@dataclass(frozen=True)
class Surroundings:
    """What a pool asks of the session that it belongs to.

    Attributes:
        hire: a new actor on a free seat; None when no host has room.
        dismiss: ends actors and frees their seats; whether they were lost.
        lost: called for each member that is lost, with the number of items that go to another; raises RunFailed when
            there were too many.
        attend: called while work is waited for, and before it.
        said: tells whoever watches.
        is_to_leave: whether the member's host will be taken away.
    """

    hire: Callable[[], Member | None]
    dismiss: Callable[[Sequence[Member], bool], None]
    lost: Callable[[Member, WorkerLost, int], None]
    attend: Callable[[], None]
    said: Callable[[str], None]
    is_to_leave: Callable[[Member], bool]
