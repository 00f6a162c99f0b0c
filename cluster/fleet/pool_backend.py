"""What a pool asks of its backend (PoolBackend), and all pools and learners of their session (FleetServices)."""

from collections.abc import Sequence
from typing import Protocol

from plumbob.cluster.calls import Actor
from plumbob.cluster.failures import WorkerLost
from plumbob.cluster.fleet.member import Member
from plumbob.cluster.fleet.reservations import Reservation
from plumbob.cluster.resources import ResourceNeed, WorkerRole


class PoolBackend(Protocol):
    """What a pool asks for the workers of its role. Called from the thread that works with the pool."""

    def start_worker(self) -> Member | None:
        """A new one, on a reservation of its own; None when no host has the capacity."""

    def stop_workers(self, members: Sequence[Member], are_lost: bool) -> None:
        """End their actors and release their reservations; those that are not lost close what they have open first."""

    def is_draining(self, member: Member) -> bool:
        """Whether its host is draining: it will be taken away."""

    def evict(self) -> None:
        """Preempt workers of other pools, if that makes one of this pool fit."""

    def request_hosts(self, count: int) -> None:
        """Tell Ray's autoscaler, if there is one, how many workers there shall be; 0 when all have capacity."""

    def shortage(self) -> str:
        """What is missing for one worker more, as a sentence without its end."""

    def worker_joined(self, member: Member) -> None:
        """Called when a member has opened its first model: from now on it can take work."""

    def worker_lost(self, member: Member, lost: WorkerLost, num_items: int) -> None:
        """Called when a lost member has been stopped; it is replaced if this returns.

        Args:
            num_items: what it was at and goes to another member.

        Raises:
            RunFailed: too many were lost in its slot.
        """

    def poll_control(self) -> None:
        """Called about once a tick while work is waited for: somebody may have asked something of the run."""

    def notify(self, message: str) -> None:
        """A message for people."""


class FleetServices(Protocol):
    """What pools and learners ask of the session that they belong to. Called from several threads."""

    def start_actor(self, need: ResourceNeed, reservation: Reservation, actor_class: type, num_threads: int) -> Actor:
        """An actor of that kind, started on that reservation."""

    def evict(self, need: ResourceNeed) -> None:
        """Preempt the fewest pool workers that make the group fit, never a pool's last."""

    def worker_joined(self, role: WorkerRole, worker: str, host: str, is_replacement: bool) -> None:
        """Called when a worker that was started has answered. A replacement is in the place of one that was lost."""

    def worker_lost(self, lost: WorkerLost, slot: str) -> None:
        """Called before it is replaced. Raises RunFailed when too many were lost in that slot."""

    def items_reissued(self, role: WorkerRole, num_items: int) -> None:
        """Items that go to another worker, because theirs was lost."""

    def poll_control(self) -> None:
        """Called while workers are waited for. Never waits."""

    def notify(self, message: str) -> None:
        """A message for people."""
