"""Interchangeable workers of one role, which come, go and are replaced while work goes on."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import ray

from plumbob.cluster.calls import BOOT_TIMEOUT, CALL_TIMEOUT, Actor, Call, result_of
from plumbob.cluster.failures import UnfitHost, WorkerFailed, WorkerLost
from plumbob.cluster.fleet.capacity import Capacity
from plumbob.cluster.fleet.membership import Member, PoolHost, loss_of
from plumbob.cluster.fleet.work_queue import Job, Preparation, Task
from plumbob.cluster.nodes import living_nodes
from plumbob.cluster.run_status import WorkerRow
from plumbob.core.disk_errors import StorageFailed
from plumbob.core.errors import RunFailed, UserError
from plumbob.reward.scorer import ScoreError

TICK_S = 1.0
"""How long a wait for workers goes on before the pool looks around again."""


class Pool:
    """Members take chunks of a job when they are free: a slow, late or lost one delays nothing but its own share.

    A member that is lost, or fails at what nobody foresaw, is replaced, and its chunk is handed out again as it was;
    one that costs too many members ends the run.
    One whose host will be taken away ends what it is at and is replaced elsewhere. A new member opens the model and
    loads the newest version beside the running work. One thread at a time works; others may set `size` and `load`.

    Args:
        boot_timeout_s, call_timeout_s: bounds of an opening, and of any other call.
    """

    def __init__(self, role: str, size: int, around: PoolHost, boot_timeout_s: float, call_timeout_s: float) -> None:
        self.role, self.size = role, size
        self._around = around
        self._boot_timeout_s, self._call_timeout_s = boot_timeout_s, call_timeout_s
        self._members: list[Member] = []
        self._opening: Preparation | None = None
        self._loading: Preparation | None = None
        self._turn = threading.Lock()
        self._roster = threading.Lock()
        self._room = Capacity(role, boot_timeout_s, around.said, around.make_room, around.lacking)
        self._was_opened = False
        self._failed_openings = 0
        self._num_abandoned = 0
        self._is_closed = False
        self._looked_at = -TICK_S

    # ------------------------------------------------------------------------------------------------------- from above

    def open(self, opening: Preparation) -> None:
        """Give all members another model; returns when the first has it."""
        self._loading = None
        self._opening, self._was_opened, self._failed_openings = opening, False, 0
        with self._turn:
            self._until_one_is_ready()

    def load(self, loading: Preparation) -> None:
        """What every member loads before its next chunk; returns when the first has, or while another thread works."""
        self._loading = loading
        if self._turn.acquire(blocking=False):
            try:
                self._until_one_is_ready()
            finally:
                self._turn.release()

    def work(
        self,
        items: Sequence[Any],
        chunk_size: int,
        call: Callable[[Actor, Sequence[Any]], Any],
        doing: str,
        rest: Callable[[Any], Any | None] = lambda _: None,
    ) -> list[Any]:
        """Results of all items, in order; the arguments are those of `Job`.

        Raises:
            ScoreError: a chunk's, its rows counted over all items.
            UserError, RunFailed: what a worker raised.
            RunFailed: too many were lost, there was no room for one within the bound, or `abandon` was called.
        """
        job, num_abandoned = Job(items, chunk_size, call, doing, rest), self._num_abandoned
        with self._turn:
            self._looked_at = -TICK_S
            while not job.is_done:
                if self._num_abandoned > num_abandoned:
                    raise RunFailed(f"nobody wants what the {self.role} workers are {doing} any more")
                self._tend(job)
                for member, task in self._ended():
                    self._take(member, task, job)
        return job.results()

    def abandon(self) -> None:
        """Let the thread that works, if any, fail within a tick; later work is not concerned."""
        self._num_abandoned += 1

    @property
    def members(self) -> tuple[Member, ...]:
        """The oldest first."""
        return tuple(self._members)

    def let_go(self, members: Sequence[Member]) -> None:
        """Do without these from now on. Whoever is leaving ends what it is at, unless nobody works with the pool."""
        for member in members:
            member.is_leaving = True
        if self._turn.acquire(blocking=False):
            try:
                self._dismiss([member for member in self._members if member.is_leaving], is_lost=False)
            finally:
                self._turn.release()

    def status(self) -> tuple[WorkerRow, ...]:
        """One row a worker, for people."""
        return tuple(member.row() for member in self.members)

    def close(self) -> None:
        """End all members; a thread that works with them fails."""
        with self._roster:
            self._is_closed = True
            members, self._members = self._members, []
        self._around.dismiss(members, False)

    # ---------------------------------------------------------------------------------------------------------- members

    def _until_one_is_ready(self) -> None:
        while not any(self._is_ready(member) for member in self._members):
            self._tend(None)
            for member, task in self._ended():
                self._take(member, task, None)

    def _is_ready(self, member: Member) -> bool:
        return self._unprepared(member) is None and not member.is_leaving

    def _unprepared(self, member: Member) -> Preparation | None:
        """What the member has to do before it may take work."""
        if self._opening is not member.opened:
            return self._opening
        return self._loading if self._loading is not member.loaded else None

    def _tend(self, job: Job | None) -> None:
        """Give the free ones something to do; once a tick look around for who is lost or missing."""
        self._check_open()
        looks_around = time.monotonic() - self._looked_at > TICK_S
        if looks_around:
            self._around.attend()
            self._drop_the_lost(job)
        self._mark_leaving()
        self._hand_out(job)
        if looks_around:
            self._fill()
            self._hand_out(job)
            self._looked_at = time.monotonic()

    def _hand_out(self, job: Job | None) -> None:
        self._dismiss([member for member in self._members if member.is_leaving and member.task is None], is_lost=False)
        for member in self.members:
            if member.task is not None:
                continue
            wanted = self._unprepared(member)
            if wanted is not None:
                member.task = Task(wanted.call(member.actor), wanted, (), time.monotonic())
            elif job is not None and (chunk := job.take()) is not None:
                member.task = Task(job.call(member.actor, job.items(chunk)), job, chunk, time.monotonic())

    def _check_open(self) -> None:
        if self._is_closed:
            raise RunFailed(f"the {self.role} workers were ended while they were at work")

    def _mark_leaving(self) -> None:
        for member in self._members:
            if self._around.is_to_leave(member):
                member.is_leaving = True
        for member in self._staying()[self.size :]:
            member.is_leaving = True

    def _staying(self) -> list[Member]:
        return [member for member in self._members if not member.is_leaving]

    def _fill(self) -> None:
        for _ in range(self.size - len(self._staying())):
            hired = self._around.hire()
            if hired is None:
                self._room.lacked(len(self._members))
                return
            self._add(hired)
        self._room.sufficed()

    def _add(self, hired: Member) -> None:
        """In the lowest place that is free."""
        with self._roster:
            if not self._is_closed:
                taken = {member.place for member in self._members}
                hired.place = next(place for place in count() if place not in taken)
                self._members.append(hired)
                return
        self._around.dismiss([hired], False)
        self._check_open()

    def _drop_the_lost(self, job: Job | None) -> None:
        alive = living_nodes()
        for member in self.members:
            lost = loss_of(member, alive, *self._bound(member.task))
            if lost is not None:
                self._lose(member, lost, job)

    def _bound(self, task: Task | None) -> tuple[float, str]:
        if task is not None and task.what is self._opening:
            return self._boot_timeout_s, BOOT_TIMEOUT
        return self._call_timeout_s, CALL_TIMEOUT

    def _lose(self, member: Member, lost: WorkerLost, job: Job | None) -> None:
        self._check_open()  # Closing it ends the members that are at work.
        self._looked_at = -TICK_S
        task = member.task
        self._dismiss([member], is_lost=True)
        num_items = 0
        if task is not None and task.what is job and job is not None:
            if not self._around.is_to_leave(member) and member.seat.host.node_id in living_nodes():
                job.cost(task.chunk, lost, self._around.max_restarts)
            job.give_back(task.chunk)
            num_items = len(task.chunk)
        self._around.lost(member, lost, num_items)

    def _dismiss(self, members: Sequence[Member], is_lost: bool) -> None:
        with self._roster:
            there = [member for member in members if member in self._members]  # Not, once the pool has been closed.
            self._members = [member for member in self._members if member not in there]
        if there:
            self._around.dismiss(there, is_lost)

    # ------------------------------------------------------------------------------------------------------------ calls

    def _ended(self) -> Iterator[tuple[Member, Task]]:
        """Calls that have ended, within a tick."""
        by_result = {member.task.result: member for member in self._members if member.task is not None}
        if not by_result:
            time.sleep(TICK_S if not self._members else 0.0)
            return
        ready, _ = ray.wait(list(by_result), num_returns=1, timeout=TICK_S)
        for result in ready:
            member = by_result[result]
            task, member.task = member.task, None
            assert task is not None
            yield member, task

    def _take(self, member: Member, task: Task, job: Job | None) -> None:
        """Note what came of a call. What an earlier job, which failed, left under way is forgotten."""
        try:
            value = result_of(Call(member.actor, task.result), task.what.doing)
        except WorkerLost as lost:
            member.task = task
            self._lose(member, lost, job)
            return
        except (UserError, RunFailed) as error:
            if isinstance(task.what, Job) and task.what is not job:
                return
            if isinstance(error, ScoreError) and job is not None:
                raise job.counted_over_all(error, task.chunk) from error
            loss = self._another_may_fare_better(member, task, error)
            if loss is None:
                raise
            member.task = task
            self._lose(member, loss, job)
            return
        if isinstance(task.what, Preparation):
            task.what.check(value)
            if task.what is self._opening:
                member.opened, member.loaded = task.what, None
                self._was_opened, self._failed_openings = True, 0
            else:
                member.loaded = task.what
        elif task.what is job:
            member.num_items += job.note(task.chunk, value)

    def _another_may_fare_better(self, member: Member, task: Task, error: Exception) -> WorkerLost | None:
        """What a member raised, as its loss; None where it would be the same on any other.

        A host may be short of memory or disk, or lack what others have. So who cannot begin where others could, and
        who fails at what nobody foresaw, is replaced; the chunk that two of them fail at ends the run.
        """
        if task.what is self._opening:
            others = any(other.opened is self._opening for other in self._members)
            self._failed_openings += 1
            if self._was_opened and (others or self._failed_openings == 1):
                return UnfitHost(f"{member.actor.name} on {member.seat.host.address}: {error}")
            return None
        if not isinstance(error, WorkerFailed | StorageFailed):
            return None
        is_first = isinstance(task.what, Preparation) or task.what.failed(task.chunk) == 1
        return WorkerLost(str(error)) if is_first else None
