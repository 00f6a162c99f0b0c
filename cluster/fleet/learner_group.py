"""The learner processes: started together, ended together."""

import time
from collections.abc import Callable
from functools import partial

from plumbob.cluster.calls import BOOT_TIMEOUT, Actor, Call, gather_ranks
from plumbob.cluster.failures import LearnersLost
from plumbob.cluster.fleet.capacity import CapacityWait
from plumbob.cluster.fleet.recovery.unfit_hosts import NO_MEMORY_S
from plumbob.cluster.fleet.reservations import Reservation, Reservations, end_actor, why_no_room
from plumbob.cluster.resources import Need, learners
from plumbob.cluster.run_status import WorkerRow
from plumbob.cluster.workers.learner_worker import LearnerWorker
from plumbob.configs.settings.workers import LearnerRankSettings
from plumbob.core.errors import RunFailed
from plumbob.trainers.learner.engine import Rank

POLL_S = 0.5

ANY_HOST_S = 10.0
"""How long room is looked for, and asked for, on hosts that stay, before any host will do."""

Start = Callable[[Need, Reservation, type, int], Actor]
"""(need, seat, kind, number of threads) -> the actor that is started there."""


class LearnerRanks:
    """The ranks of one world, used by one stage after another as long as they are of the size that it asks for.

    Args:
        make_room: lets others go who sit where a need could be met.
    """

    def __init__(
        self,
        seating: Reservations,
        start: Start,
        make_room: Callable[[Need], None],
        boot_timeout_s: float,
        said: Callable[[str], None],
    ) -> None:
        self._seating, self._start, self._make_room = seating, start, make_room
        self._boot_timeout_s, self._said = boot_timeout_s, said
        self._settings: tuple[Need, int] | None = None
        self._seats: tuple[Reservation, ...] = ()
        self._actors: tuple[Actor, ...] = ()
        self._lacked_memory = False

    def of(self, settings: LearnerRankSettings) -> tuple[Actor, ...]:
        """The ranks that these settings ask for, rank 0 first."""
        wanted = (learners(settings), settings.num_threads)
        if self._settings != wanted or not (self._actors or self._seating.may_stay(self._seats)):
            self.end()
        if not self._actors:
            self._settings = None
            self._start_all(*wanted)
            self._settings = wanted
        return self._actors

    def lost(self, lost: LearnersLost) -> None:
        """End what is left of a group that lost a rank.

        The next one has its seats, on which others may wait, if it had begun there and all its hosts answer then; not a
        second time where one was killed for want of memory, which only the first time may be free again by now.
        """
        placed = zip(self._actors, self._seats, strict=False)
        without = [seat for actor, seat in placed if actor.name == lost.oom_killed]
        self._seating.avoid(without, NO_MEMORY_S)
        self._end_actors()
        if self._settings is None or (without and self._lacked_memory):
            self.end()
        elif without:
            self._lacked_memory = True

    def end(self) -> None:
        self._end_actors()
        seats, self._seats, self._settings, self._lacked_memory = self._seats, (), None, False
        for seat in seats:
            self._seating.release(seat)

    def status(self) -> tuple[WorkerRow, ...]:
        """One row a rank, for people."""
        placed = zip(self._actors, self._seats, strict=False)  # None has a worker between a loss and the next start.
        return tuple(WorkerRow(actor.name, seat.host.address) for actor, seat in placed)

    def _end_actors(self) -> None:
        for actor in self._actors:
            end_actor(actor.handle)
        self._actors = ()

    def _start_all(self, need: Need, num_threads: int) -> None:
        self._seats = self._seats or self._seats_for(need)
        self._actors = tuple(self._start(need, seat, LearnerWorker, num_threads) for seat in self._seats)
        actors = self._actors
        first = Call(actors[0], actors[0].handle.free_address.remote())
        (master,) = gather_ranks([first], "starting", self._boot_timeout_s, BOOT_TIMEOUT)
        ranks = [Rank(index, len(actors), master) for index in range(len(actors))]
        calls = [Call(a, a.handle.join.remote(rank)) for a, rank in zip(actors, ranks, strict=True)]
        gather_ranks(calls, "joining the group of learners", self._boot_timeout_s, BOOT_TIMEOUT)

    def _seats_for(self, need: Need) -> tuple[Reservation, ...]:
        """Of all ranks. What others hold, or a lost group has not given back yet, is waited for."""
        seats = self._seating.take_all(need)
        if not seats:
            bound = f"{self._boot_timeout_s:g} s ({BOOT_TIMEOUT})"
            self._said(f"waiting up to {bound} for room for {need.count} learner workers: {why_no_room(need)}")
            wait = CapacityWait(self._boot_timeout_s, partial(self._make_room, need))
            while not seats and wait.goes_on():
                time.sleep(POLL_S)
                seats = self._seating.take_all(need, anywhere=wait.seconds > ANY_HOST_S)
        if not seats:
            raise RunFailed(f"no room for the learners after {bound}: {why_no_room(need)}")
        return tuple(seats)
