"""The workers of one role (RoleWorkers): started on reservations, stopped, kept off hosts where they cannot begin."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from plumbob.cluster.calls import wait_ignoring_results
from plumbob.cluster.failures import UnfitHost, WorkerLost
from plumbob.cluster.fleet.member import Member
from plumbob.cluster.fleet.pool_backend import FleetServices
from plumbob.cluster.fleet.recovery.unfit_hosts import NO_MEMORY_S, UnfitHosts
from plumbob.cluster.fleet.reservations import Reservations, end_actor, shortage_of
from plumbob.cluster.resources import ResourceNeed

CLOSE_S = 5.0
"""How long a rollout worker has to end its engine; one that is busy is killed all the same."""


class RoleWorkers:
    """Satisfies `PoolBackend`.

    Args:
        need: of the group; each worker is of that size.
        actor_class: of its workers.
        unfit_for_s: how long a host counts where workers could not begin.
    """

    def __init__(
        self,
        need: ResourceNeed,
        num_threads: int,
        actor_class: type,
        reservations: Reservations,
        fleet: FleetServices,
        unfit_for_s: float,
    ) -> None:
        self._one, self._num_threads, self._actor_class = replace(need, count=1), num_threads, actor_class
        self._reservations, self._fleet = reservations, fleet
        self._placed: Counter[str] = Counter()
        self._unfit = UnfitHosts(unfit_for_s)

    def start_worker(self) -> Member | None:
        reservation = self._reservations.reserve_one(self._one, self._placed, self._unfit.now())
        if reservation is None:
            return None
        self._placed[reservation.host.node_id] += 1
        return Member(
            self._fleet.start_actor(self._one, reservation, self._actor_class, self._num_threads), reservation
        )

    def stop_workers(self, members: Sequence[Member], are_lost: bool) -> None:
        if not are_lost:  # An engine has processes of its own, which outlive the death of the one that has them.
            wait_ignoring_results([member.actor.handle.close.remote() for member in members], CLOSE_S)
        for member in members:
            self._placed[member.node_id] -= 1
            end_actor(member.actor.handle)
            self._reservations.release(member.reservation)

    def is_draining(self, member: Member) -> bool:
        return member.node_id in self._reservations.draining

    def evict(self) -> None:
        self._fleet.evict(self._one)

    def request_hosts(self, count: int) -> None:
        self._reservations.request_hosts(replace(self._one, count=count))

    def shortage(self) -> str:
        return shortage_of(self._one)

    def worker_joined(self, member: Member) -> None:
        host = member.reservation.host.address
        self._fleet.worker_joined(self._one.role, member.actor.name, host, member.is_replacement)

    def worker_lost(self, member: Member, lost: WorkerLost, num_items: int) -> None:
        self._fleet.items_reissued(self._one.role, num_items)
        reason = str(lost).splitlines()[0]
        if self.is_draining(member):
            self.notify(f"{reason}; its host was draining")
        elif isinstance(lost, UnfitHost):
            self._unfit.failed(member.node_id)
            self.notify(f"{reason}; it will be retried, after a second failure on another host")
        else:
            if lost.oom_killed:
                self._reservations.avoid([member.reservation], NO_MEMORY_S)
            self._fleet.worker_lost(lost, f"{self._one.role} {member.slot}")

    def poll_control(self) -> None:
        self._fleet.poll_control()

    def notify(self, message: str) -> None:
        self._fleet.notify(message)
