"""The learner ranks of a session: processes of one world, started together and ended together (LearnerRanks)."""

import time
from dataclasses import replace

from plumbob.cluster.calls import BOOT_TIMEOUT, Actor, Call, gather_ranks, workers_in_words
from plumbob.cluster.failures import LearnersLost
from plumbob.cluster.fleet.capacity import CapacityWait
from plumbob.cluster.fleet.pool_backend import FleetServices
from plumbob.cluster.fleet.recovery.unfit_hosts import NO_MEMORY_S
from plumbob.cluster.fleet.reservations import Reservation, Reservations, end_actor, shortage_of
from plumbob.cluster.resources import ResourceNeed, learner_need
from plumbob.cluster.run_status import WorkerStatus
from plumbob.cluster.workers.learner_worker import LearnerWorker
from plumbob.configs.settings.workers import LearnerRankSettings
from plumbob.core.activities import activities
from plumbob.core.errors import RunFailed
from plumbob.trainers.learner.engine import Rank

POLL_S = 0.5

ANY_HOST_S = 10.0
"""How long capacity is looked for, and others evicted, on hosts that stay, before any host will do."""


class LearnerRanks:
    """The ranks of one world, used by one stage after another as long as they are of the size that it asks for."""

    def __init__(self, reservations: Reservations, fleet: FleetServices, boot_timeout_s: float) -> None:
        self._reservations, self._fleet, self._boot_timeout_s = reservations, fleet, boot_timeout_s
        self._settings: tuple[ResourceNeed, int] | None = None
        self._reserved: tuple[Reservation, ...] = ()
        self._actors: tuple[Actor, ...] = ()
        self._was_oom_killed = False
        self._is_unreplaced = False

    def get_or_start(self, settings: LearnerRankSettings) -> tuple[Actor, ...]:
        """The ranks that these settings ask for, rank 0 first."""
        wanted = (learner_need(settings), settings.threads)
        if self._settings != wanted or not (self._actors or self._reservations.are_usable(self._reserved)):
            self.stop()
        if not self._actors:
            self._settings = None
            self._start_all(*wanted)
            self._settings = wanted
        return self._actors

    def stop_lost(self, lost: LearnersLost) -> None:
        """End what is left of a group that lost a rank.

        The next one has its reservations, for which others may wait, if it had begun there and all its hosts answer
        then; not a second time where one was killed for want of memory, which only the first time may be free by now.
        """
        placed = zip(self._actors, self._reserved, strict=False)
        self._is_unreplaced = self._is_unreplaced or self._settings is not None
        without = [reservation for actor, reservation in placed if actor.name == lost.oom_killed]
        self._reservations.avoid(without, NO_MEMORY_S)
        self._end_actors()
        if self._settings is None or (without and self._was_oom_killed):
            self.stop()
        elif without:
            self._was_oom_killed = True

    def stop(self) -> None:
        """End all ranks, and release what they had reserved."""
        self._end_actors()
        reserved, self._reserved, self._settings, self._was_oom_killed = self._reserved, (), None, False
        for reservation in reserved:
            self._reservations.release(reservation)

    def status(self) -> tuple[WorkerStatus, ...]:
        """One row a rank, for people."""
        placed = zip(
            self._actors, self._reserved, strict=False
        )  # Between a loss and the next start there are no actors.
        return tuple(WorkerStatus(actor.name, reservation.host.address) for actor, reservation in placed)

    def _end_actors(self) -> None:
        for actor in self._actors:
            end_actor(actor.handle)
        self._actors = ()

    def _start_all(self, need: ResourceNeed, num_threads: int) -> None:
        self._reserved = self._reserved or self._reserve_all(need)
        self._actors = tuple(
            self._fleet.start_actor(need, reservation, LearnerWorker, num_threads) for reservation in self._reserved
        )
        actors = self._actors
        first = Call(actors[0], actors[0].handle.free_address.remote())
        (master,) = gather_ranks([first], "starting", self._boot_timeout_s, BOOT_TIMEOUT)
        ranks = [Rank(index, len(actors), master) for index in range(len(actors))]
        calls = [Call(a, a.handle.join.remote(rank)) for a, rank in zip(actors, ranks, strict=True)]
        gather_ranks(calls, "joining the group of learners", self._boot_timeout_s, BOOT_TIMEOUT)
        for actor, reservation in zip(actors, self._reserved, strict=True):
            self._fleet.worker_joined(need.role, actor.name, reservation.host.address, self._is_unreplaced)
        self._is_unreplaced = False

    def _reserve_all(self, need: ResourceNeed) -> tuple[Reservation, ...]:
        """For all ranks. What others hold, or a lost group has not given back yet, is waited for."""
        reserved = self._reservations.reserve_all(need)
        if not reserved:
            bound = f"{self._boot_timeout_s:g} s ({BOOT_TIMEOUT})"
            self._fleet.notify(
                f"waiting up to {bound} for capacity for {need.count} learner workers: {shortage_of(need)}"
            )
            wait = CapacityWait(self._boot_timeout_s)
            with activities.during(f"{workers_in_words(need.role, need.count)}: waiting for capacity"):
                while not reserved and not wait.is_over:
                    self._reservations.request_hosts(need)
                    if wait.shall_evict():
                        self._fleet.evict(need)
                    time.sleep(POLL_S)
                    reserved = self._reservations.reserve_all(need, anywhere=wait.seconds > ANY_HOST_S)
            self._reservations.request_hosts(replace(need, count=0))
        if not reserved:
            raise RunFailed(f"no capacity for the learners after {bound}: {shortage_of(need)}")
        return tuple(reserved)
