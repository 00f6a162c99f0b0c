"""The pools of a session: one a role, used again by later stages and runs where they fit."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from plumbob.cluster.calls import drain
from plumbob.cluster.failures import UnfitHost, WorkerLost
from plumbob.cluster.fleet.learner_group import Start
from plumbob.cluster.fleet.membership import Member, PoolHost
from plumbob.cluster.fleet.pool import Pool
from plumbob.cluster.fleet.recovery.unfit_hosts import NO_MEMORY_S, UnfitHosts
from plumbob.cluster.fleet.reservations import Reservations, why_no_room
from plumbob.cluster.fleet.work_queue import Preparation
from plumbob.cluster.placement import who_makes_room
from plumbob.cluster.resources import Need, WorkerRole
from plumbob.cluster.run_status import WorkerRow
from plumbob.configs.settings.workers import ClusterSettings, WorkerGroupSettings

CLOSE_S = 5.0
"""How long a rollout worker has to end its engine; one that is busy is killed all the same."""


@dataclass
class PoolEntry:
    """A pool with what it was made for, and the model that it has open."""

    pool: Pool
    need: Need
    num_threads: int
    model: Any = None


class PoolRegistry:
    """Those that are there, by role.

    Args:
        start: starts an actor on a seat.
        attend: called while a pool waits.
        said: tells whoever watches.
        lost: (role, which place, how it was lost) of each worker that is to be replaced; raises RunFailed when there
            were too many.
        reissued: (role, number of items that go to another worker).
    """

    def __init__(
        self,
        cluster: ClusterSettings,
        seating: Reservations,
        start: Start,
        attend: Callable[[], None],
        said: Callable[[str], None],
        lost: Callable[[WorkerLost, str], None],
        reissued: Callable[[WorkerRole, int], None],
    ) -> None:
        self._cluster, self._seating, self._start = cluster, seating, start
        self._attend, self._said, self._lost, self._reissued = attend, said, lost, reissued
        self._staffed: dict[WorkerRole, PoolEntry] = {}

    def get(self, role: WorkerRole) -> PoolEntry | None:
        return self._staffed.get(role)

    def status(self) -> dict[WorkerRole, tuple[WorkerRow, ...]]:
        """Role -> one row a worker, for people."""
        return {role: staffed.pool.status() for role, staffed in self._staffed.copy().items()}

    def needs(self) -> dict[WorkerRole, Need]:
        return {role: staffed.need for role, staffed in self._staffed.copy().items()}

    def abandon(self) -> None:
        """Let work that is under way in other threads fail."""
        for staffed in self._staffed.copy().values():
            staffed.pool.abandon()

    def close(self, roles: Iterable[WorkerRole]) -> None:
        for role in list(roles):
            closed = self._staffed.pop(role, None)
            if closed is not None:
                closed.pool.close()

    def opened(self, need: Need, workers: WorkerGroupSettings, kind: type, model: Any, opening: Preparation) -> Pool:
        """The pool of that role with that model: one that is there is used again where its workers are of that size."""
        staffed = self._staffed.get(need.role)
        if staffed is not None and not _same_size(staffed, need, workers):
            self.close([need.role])
            staffed = None
        if staffed is None:
            staffed = PoolEntry(self._new(need, workers.num_threads, kind), need, workers.num_threads)
            self._staffed[need.role] = staffed
        if need.count != staffed.need.count:
            staffed.need, staffed.pool.size = need, need.count
        if model != staffed.model:
            staffed.pool.open(opening)
            staffed.model = model
        return staffed.pool

    def make_room(self, need: Need) -> None:
        """Let workers go that sit where others could be seated, who have a claim to it for a while.

        None goes that could stay, and one of every pool stays. The newest of a pool go first; it does with fewer than
        it wants until there is room again.
        """
        pools = [staffed.pool for staffed in self._staffed.copy().values()]
        going = [member.seat for pool in pools for member in pool.members if member.is_leaving]
        spare = [(pool, member) for pool in pools for member in _spare(pool)]
        seats = [(member.seat.host.node_id, member.seat.size) for _, member in spare]
        found = who_makes_room(need, self._seating.room(going), seats)
        if found is None:
            return
        self._seating.claim(need.role)
        for pool in pools:
            chosen = [spare[place][1] for place in found if spare[place][0] is pool]
            for member in chosen:
                self._said(f"{member.actor.name} makes room for the {need.role} workers")
            pool.let_go(chosen)

    def _new(self, need: Need, num_threads: int, kind: type) -> Pool:
        seated: Counter[str] = Counter()
        unfit = UnfitHosts(self._cluster.boot_timeout_s)

        def hire() -> Member | None:
            seat = self._seating.take_one(need, seated, unfit.now())
            if seat is None:
                return None
            seated[seat.host.node_id] += 1
            return Member(self._start(need, seat, kind, num_threads), seat)

        def dismiss(members: Sequence[Member], is_lost: bool) -> None:
            if not is_lost:  # An engine has processes of its own, which outlive the death of the one that has them.
                drain([member.actor.handle.close.remote() for member in members], CLOSE_S)
            for member in members:
                seated[member.seat.host.node_id] -= 1
                self._seating.give_up(member.actor.handle, member.seat)

        def is_to_leave(member: Member) -> bool:
            return member.seat.host.node_id in self._seating.leaving

        def lost(member: Member, worker: WorkerLost, num_items: int) -> None:
            self._reissued(need.role, num_items)
            reason = str(worker).splitlines()[0]
            if is_to_leave(member):
                self._said(f"{reason}; its host was to be taken away")
            elif isinstance(worker, UnfitHost):
                unfit.failed(member.seat.host.node_id)
                self._said(f"{reason}; it is tried again, elsewhere after the second time")
            else:
                if worker.oom_killed:
                    self._seating.avoid([member.seat], NO_MEMORY_S)
                self._lost(worker, f"{need.role} {member.place}")

        one = replace(need, count=1)
        around = PoolHost(
            hire=hire,
            dismiss=dismiss,
            lost=lost,
            make_room=partial(self.make_room, one),
            lacking=partial(why_no_room, one),
            attend=self._attend,
            said=self._said,
            is_to_leave=is_to_leave,
            max_restarts=self._cluster.max_restarts,
        )
        return Pool(need.role, need.count, around, self._cluster.boot_timeout_s, self._cluster.call_timeout_s)


def _spare(pool: Pool) -> list[Member]:
    """Whom it could do without, the newest first: all but one that stays."""
    return [member for member in pool.members if not member.is_leaving][:0:-1]


def _same_size(staffed: PoolEntry, need: Need, workers: WorkerGroupSettings) -> bool:
    return (replace(staffed.need, count=need.count), staffed.num_threads) == (need, workers.num_threads)
