"""A pool: interchangeable workers of one role that take chunks of work when they are free.

The fleet of a session, and who calls whom (arrows down; states of a member are drawn in fleet.membership)::

    SamplerGroup, ScorerGroup (worker_groups)          LearnerGroup (worker_groups)
        | work, open, load                                 | remote calls to all ranks at once
        v                                                  v
    Pool: hands chunks to free members                 LearnerRanks (learner_ranks): one world of ranks,
        | fill, stop_drained, find_lost, stop_lost         |   started and stopped together
        v                                                  |
    Membership: who is in the pool --> worker_loss_rules   |
        |                          --> capacity: waits <---+
        v PoolBackend                                      |
    RoleWorkers: workers of one role --> unfit_hosts       |
        |                     |                            |
        |                     +--> Reservations <----------+   placement groups, by placement's plan for all roles
        v FleetServices                                    |
    Session <----------------------------------------------+
        | evict                             | worker_lost              | start_actor
        v                                   v                          v
    PoolRegistry: one pool a role       RestartBudget of the run   a Ray actor of cluster.workers
        v
    eviction: Membership.drain of those that are in the way of another role, for which what they free is held

A lost rollout worker, from noticed to replaced: `Pool._poll_members`, `Membership.find_lost` (a rule holds),
`Pool._lose`, `Membership.stop_lost`, `RoleWorkers.stop_workers`, `Reservations.release`; its chunk goes back to the
batch; `RoleWorkers.worker_lost`, `Session.worker_lost` (the run's budget). Then `Membership.fill`,
`RoleWorkers.start_worker`, `Reservations.reserve_one`, `Session.start_actor`; where none has capacity,
`ShortageTracker.handle_shortage` waits and evicts.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import ray

from plumbob.cluster.calls import BOOT_TIMEOUT, CALL_TIMEOUT, Actor, Call, result_of, workers_in_words
from plumbob.cluster.failures import UnfitHost, WorkerFailed, WorkerLost
from plumbob.cluster.fleet.member import Member
from plumbob.cluster.fleet.membership import Membership
from plumbob.cluster.fleet.pool_backend import PoolBackend
from plumbob.cluster.fleet.work_queue import Preparation, Task, WorkBatch
from plumbob.cluster.nodes import living_nodes
from plumbob.cluster.run_status import WorkerStatus
from plumbob.core.activities import activities
from plumbob.core.disk_errors import StorageFailed
from plumbob.core.errors import RunFailed, UserError
from plumbob.core.spans import spans
from plumbob.reward.scorer import ScoreError

TICK_S = 1.0
"""How long a wait for workers lasts before the pool looks for who is lost or missing again."""


class Pool:
    """Members take chunks of a batch when they are free: a slow, late or lost one delays nothing but its own share.

    A member that is lost, or fails with an unexpected error, is replaced, and its chunk is handed out again as it was;
    one that costs too many members ends the run.
    One whose host is draining ends what it is doing and is replaced elsewhere. A new member opens the model and
    loads the newest version beside the running work. One thread at a time works; others may set the size and `load`.

    Args:
        max_restarts: how many members one chunk may cost; one more ends the run.
    """

    def __init__(self, role: str, membership: Membership, backend: PoolBackend, max_restarts: int) -> None:
        self.role, self.membership = role, membership
        self._backend, self._max_restarts = backend, max_restarts
        self._opening: Preparation | None = None
        self._loading: Preparation | None = None
        self._was_opened = False
        self._failed_openings = 0
        self._num_abandoned = 0
        self._polled_at = -TICK_S

    # ------------------------------------------------------------------------------------------------------- from above

    def open(self, opening: Preparation) -> None:
        """Give all members another model; returns when the first has it."""
        self._loading = None
        self._opening, self._was_opened, self._failed_openings = opening, False, 0
        with self.membership.work_lock:
            self._until_one_is_ready(opening)

    def load(self, loading: Preparation) -> None:
        """What every member loads before its next chunk; returns when the first has, or while another thread works."""
        self._loading = loading
        if self.membership.work_lock.acquire(blocking=False):
            try:
                self._until_one_is_ready(loading)
            finally:
                self.membership.work_lock.release()

    def work(
        self,
        items: Sequence[Any],
        chunk_size: int,
        call: Callable[[Actor, Sequence[Any]], Any],
        doing: str,
        remaining: Callable[[Any], Any | None] = lambda _: None,
        joined: Callable[[Sequence[Any], Any, Any], Sequence[Any]] = lambda items, call, result: result,
    ) -> list[Any]:
        """Results of all items, in order; the arguments are those of `WorkBatch`.

        Raises:
            ScoreError: a chunk's, its rows counted over all items.
            UserError, RunFailed: what a worker raised.
            RunFailed: too many were lost, there was no capacity for one within the bound, or `abandon` was called.
        """
        num_abandoned = self._num_abandoned
        batch = WorkBatch(items, chunk_size, call, doing, remaining, joined)
        with self.membership.work_lock, self._shown(doing):
            self._polled_at = -TICK_S
            while not batch.is_done:
                if self._num_abandoned > num_abandoned:
                    raise RunFailed(f"{doing} abandoned: a learner was lost")
                self._poll_members(batch)
                for member, task in self._ended():
                    self._handle_result(member, task, batch)
        return batch.results()

    def abandon(self) -> None:
        """Let the thread that works, if any, fail within a tick; later work is not concerned."""
        self._num_abandoned += 1

    @property
    def members(self) -> tuple[Member, ...]:
        """The oldest first."""
        return self.membership.members

    @property
    def target_size(self) -> int:
        """How many members are wanted; any thread may set it."""
        return self.membership.target_size

    @target_size.setter
    def target_size(self, wanted: int) -> None:
        self.membership.target_size = wanted

    def status(self) -> tuple[WorkerStatus, ...]:
        """One row a worker, for people."""
        return tuple(member.status() for member in self.members)

    def close(self) -> None:
        """Stop all members; a thread that works with them fails."""
        self.membership.close()

    # --------------------------------------------------------------------------------------------------------- dispatch

    def _until_one_is_ready(self, wanted: Preparation) -> None:
        with self._shown(wanted.doing):
            while not any(self._is_ready(member) for member in self.members):
                self._poll_members(None)
                for member, task in self._ended():
                    self._handle_result(member, task, None)

    def _shown(self, doing: str) -> AbstractContextManager[None]:
        return activities.during(f"{workers_in_words(self.role, self.target_size)}: {doing}")

    def _is_ready(self, member: Member) -> bool:
        return self._unprepared(member) is None and not member.is_draining

    def _unprepared(self, member: Member) -> Preparation | None:
        """What the member has to do before it may take work."""
        if self._opening is not member.opened_with:
            return self._opening
        return self._loading if self._loading is not member.loaded_with else None

    def _poll_members(self, batch: WorkBatch | None) -> None:
        """Give the free ones something to do; once a tick look for who is lost or missing."""
        self.membership.check_open()
        is_due = time.monotonic() - self._polled_at > TICK_S
        if is_due:
            self._backend.poll_control()
            for member, lost in self.membership.find_lost():
                self._lose(member, lost, batch)
        self.membership.mark_draining()
        self._hand_out(batch)
        if is_due:
            self.membership.fill()
            self._hand_out(batch)
            self._polled_at = time.monotonic()

    def _hand_out(self, batch: WorkBatch | None) -> None:
        self.membership.stop_drained()
        for member in self.members:
            if member.task is not None:
                continue
            wanted = self._unprepared(member)
            if wanted is not None:
                timeout = BOOT_TIMEOUT if wanted is self._opening else CALL_TIMEOUT
                member.task = Task(wanted.call(member.actor), wanted, (), time.monotonic(), timeout)
            elif batch is not None and (chunk := batch.take()) is not None:
                call = batch.call(member.actor, batch.items(chunk))
                member.task = Task(call, batch, chunk, time.monotonic(), CALL_TIMEOUT)

    def _ended(self) -> Iterator[tuple[Member, Task]]:
        """Calls that have ended, within a tick."""
        by_result = {member.task.result: member for member in self.members if member.task is not None}
        if not by_result:
            time.sleep(TICK_S if not self.members else 0.0)
            return
        ready, _ = ray.wait(list(by_result), num_returns=1, timeout=TICK_S)
        for result in ready:
            member = by_result[result]
            task, member.task = member.task, None
            assert task is not None
            spans.record(member.actor.name, task.work.doing, task.began)
            yield member, task

    # ---------------------------------------------------------------------------------------------------------- results

    def _handle_result(self, member: Member, task: Task, batch: WorkBatch | None) -> None:
        """Note the result of a call. What an earlier batch, which failed, left under way is forgotten."""
        try:
            value = result_of(Call(member.actor, task.result), task.work.doing)
        except WorkerLost as lost:
            member.task = task
            self._lose(member, self._as_crash(member, lost), batch)
            return
        except (UserError, RunFailed) as error:
            if isinstance(task.work, WorkBatch) and task.work is not batch:
                return
            if isinstance(error, ScoreError) and batch is not None:
                raise batch.counted_over_all(error, task.chunk) from error
            loss = self._as_loss(member, task, error)
            if loss is None:
                raise
            member.task = task
            self._lose(member, loss, batch)
            return
        if isinstance(task.work, Preparation):
            task.work.check(value)
            if task.work is self._opening:
                if member.opened_with is None:
                    self._backend.worker_joined(member)
                member.opened_with, member.loaded_with = task.work, None
                self._was_opened, self._failed_openings = True, 0
            else:
                member.loaded_with = task.work
        elif task.work is batch:
            values = batch.values_of(task.chunk, task.result, value)
            member.num_items += batch.record_values(task.chunk, values)

    def _as_loss(self, member: Member, task: Task, error: Exception) -> WorkerLost | None:
        """What a member raised, as its loss; None where it would be the same on any other.

        A host may be short of memory or disk, or lack what others have. So who cannot begin where others could, and
        who fails with an unexpected error, is replaced; the chunk that two of them fail at ends the run.
        """
        if task.work is self._opening:
            others = any(other.opened_with is self._opening for other in self.members)
            self._failed_openings += 1
            if self._was_opened and (others or self._failed_openings == 1):
                return UnfitHost(f"{member.actor.name} on {member.reservation.host.address}: {error}")
            return None
        if not isinstance(error, WorkerFailed | StorageFailed):
            return None
        is_first = isinstance(task.work, Preparation) or task.work.count_failure(task.chunk) == 1
        return WorkerLost(str(error)) if is_first else None

    def _as_crash(self, member: Member, lost: WorkerLost) -> WorkerLost:
        """The loss of a member that died: it is its host's, where it crashed before it had worked and others have."""
        lost.has_worked = member.num_items > 0
        if lost.crash is None or lost.has_worked or not any(other.num_items for other in self.members):
            return lost
        return UnfitHost(f"{member.actor.name} on {member.reservation.host.address}: {lost}")

    def _lose(self, member: Member, lost: WorkerLost, batch: WorkBatch | None) -> None:
        """Stop a lost member and hand its chunk out again. Raises RunFailed where that has cost too many."""
        self.membership.check_open()  # Closing the pool ends the members that are at work.
        self._polled_at = -TICK_S
        task = member.task
        self.membership.stop_lost(member)
        num_items = 0
        if task is not None and task.work is batch and batch is not None:
            if not self._backend.is_draining(member) and member.node_id in living_nodes():
                batch.count_loss(task.chunk, lost, self._max_restarts)
            batch.requeue(task.chunk)
            num_items = len(task.chunk)
        self._backend.worker_lost(member, lost, num_items)
