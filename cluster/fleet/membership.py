"""Membership of a pool: members join, drain, are lost and are replaced, each through the states drawn here.

::

               PoolBackend.start_worker, while there are fewer than `target_size` (Membership.fill)
                                            |
                                            v
         +--- another model (open), ---> PREPARING   opens the pool's model, then loads its newest version
         |    a new version (load)          |
         |                                  | both have ended well
         |                                  v
         +------------------------------- IDLE <-----------------------------+
                                            |                                | results kept (WorkBatch.record_values)
                                            | a chunk (WorkBatch.take)       |
                                            v                                |
                                         WORKING ----------------------------+

    from PREPARING, IDLE and WORKING, whatever comes first:

      its host is draining (people, Ray's drain notice) -----------+
      it is one of the newest beyond `target_size` ----------------+--> DRAINING ---> STOPPED
      others need what it holds (recovery.eviction) ---------------+    takes no more; stopped when its call has ended,
                                                                        or at once where nobody works with the pool
      a loss rule holds (worker_loss_rules: host, overdue call) ---+
      its actor dies in a call, or Ray kills it for want of memory +--> LOST   its chunk goes back to the batch; one too
      it fails where another may not (Pool._as_loss) --------------+    many in its slot ends the run
      the pool is closed (a later stage, the end) ---------------------> STOPPED

A DRAINING member may be LOST too. LOST and STOPPED give the reservation back. Whoever joins takes the lowest free slot:
a replacement has the slot of the one that it replaces, by which losses are counted (recovery.budget).
"""

import threading
import time
from collections.abc import Sequence
from itertools import count

from plumbob.cluster.calls import ended_among, last_lines
from plumbob.cluster.failures import WorkerLost
from plumbob.cluster.fleet.capacity import ShortageTracker
from plumbob.cluster.fleet.member import Member, PoolSnapshot, WorkerLossRule
from plumbob.cluster.fleet.pool_backend import PoolBackend
from plumbob.cluster.nodes import living_nodes
from plumbob.core.errors import RunFailed


class Membership:
    """Who is in a pool. The holder of `work_lock` changes that; any thread may set `target_size`, drain or close.

    Args:
        boot_timeout_s: how long capacity is waited for once nobody is left.

    Attributes:
        target_size: how many members are wanted.
        work_lock: held by the thread that works with the members.
        worker_loss_rules: when one is given up; the first that holds gives the reason.
    """

    def __init__(
        self,
        role: str,
        target_size: int,
        backend: PoolBackend,
        boot_timeout_s: float,
        worker_loss_rules: tuple[WorkerLossRule, ...],
    ) -> None:
        self.target_size, self.worker_loss_rules = target_size, worker_loss_rules
        self.work_lock = threading.Lock()
        self._role, self._backend = role, backend
        self._members: list[Member] = []
        self._members_lock = threading.Lock()
        self._shortage = ShortageTracker(role, boot_timeout_s, backend)
        self._is_closed = False
        self._num_unreplaced = 0

    @property
    def members(self) -> tuple[Member, ...]:
        """The oldest first."""
        return tuple(self._members)

    def check_open(self) -> None:
        """Raises RunFailed once the pool has been closed."""
        if self._is_closed:
            raise RunFailed(f"the {self._role} workers were ended while they were at work")

    def close(self) -> None:
        """Stop all members; a thread that works with them fails."""
        with self._members_lock:
            self._is_closed = True
            members, self._members = self._members, []
        self._backend.stop_workers(members, are_lost=False)
        self._backend.request_hosts(0)

    # ------------------------------------------------------------------------------------------------------------- join

    def fill(self) -> None:
        """Start workers until there are as many as are wanted, or no host has capacity. RunFailed after a long wait."""
        for _ in range(self.target_size - len(self._staying())):
            started = self._backend.start_worker()
            if started is None:
                self._backend.request_hosts(self.target_size)
                self._shortage.handle_shortage(len(self._members))
                return
            self._join(started)
        self._num_unreplaced = 0  # Fewer may be wanted by now: whoever comes when more are again replaces nobody.
        self._backend.request_hosts(0)
        self._shortage.handle_enough()

    def _join(self, started: Member) -> None:
        """In the lowest slot that is free."""
        with self._members_lock:
            if not self._is_closed:
                taken = {member.slot for member in self._members}
                started.slot = next(slot for slot in count() if slot not in taken)
                started.is_replacement = self._num_unreplaced > 0
                self._num_unreplaced -= started.is_replacement
                self._members.append(started)
                return
        self._backend.stop_workers([started], are_lost=False)
        self.check_open()

    # ------------------------------------------------------------------------------------------------------------ drain

    def drain(self, members: Sequence[Member]) -> None:
        """Do without these from now on. Each ends what it is doing, unless nobody works with the pool."""
        for member in members:
            member.is_draining = True
        if self.work_lock.acquire(blocking=False):
            try:
                self._stop([member for member in self._members if member.is_draining], are_lost=False)
            finally:
                self.work_lock.release()

    def mark_draining(self) -> None:
        """Those whose hosts are draining, and the newest of those that are too many."""
        for member in self._members:
            if self._backend.is_draining(member):
                member.is_draining = True
        for member in self._staying()[self.target_size :]:
            member.is_draining = True

    def stop_drained(self) -> None:
        """Those that are draining and have ended what they were doing."""
        self._stop([member for member in self._members if member.is_draining and member.task is None], are_lost=False)

    def _staying(self) -> list[Member]:
        return [member for member in self._members if not member.is_draining]

    # ------------------------------------------------------------------------------------------------------------- lose

    def find_lost(self) -> list[tuple[Member, WorkerLost]]:
        """Those for whom a loss rule holds, each with its error."""
        snapshot = self._snapshot()
        found = []
        for member in self.members:
            loss = next((loss for rule in self.worker_loss_rules if (loss := rule(member, snapshot)) is not None), None)
            if loss is not None:
                found.append((member, WorkerLost(f"{loss.reason}\n{last_lines(member.actor.log)}")))
        return found

    def stop_lost(self, member: Member) -> None:
        """Whoever comes next replaces it; where it had not joined yet, it stands for whom it replaced, if anybody."""
        self._num_unreplaced += member.opened_with is not None or member.is_replacement
        self._stop([member], are_lost=True)

    def _snapshot(self) -> PoolSnapshot:
        results = [task.result for member in self.members if (task := member.task) is not None]
        return PoolSnapshot(time.monotonic(), frozenset(living_nodes()), ended_among(results))

    def _stop(self, members: Sequence[Member], are_lost: bool) -> None:
        with self._members_lock:
            there = [member for member in members if member in self._members]  # Not, once the pool has been closed.
            self._members = [member for member in self._members if member not in there]
        if there:
            self._backend.stop_workers(there, are_lost)
