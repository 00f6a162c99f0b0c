"""The learner processes: started together, ended together."""

import time
from collections.abc import Callable
from typing import Any

from cluster.health import BOOT_TIMEOUT, Actor, Call, gather_ranks
from cluster.needs import Need, learners
from cluster.placement import plan
from cluster.seats import Seat, Seating, hosts
from cluster.workers import LearnerWorker
from configs.errors import RunFailed
from configs.roles import LearnerRanks
from trainers.engine import Rank

POLL_S = 0.5

CHOOSY_S = 5.0
"""How long room is looked for on hosts that stay, before any host will do: Ray's report is a moment old."""

Start = Callable[[Need, Seat, type, int], Actor]
"""(need, seat, kind, number of threads) -> the actor that is started there."""


class Ranks:
    """The ranks of one world, used by one stage after another as long as they are of the size that it asks for."""

    def __init__(self, seating: Seating, start: Start, boot_timeout_s: float, said: Callable[[str], None]) -> None:
        self._seating, self._start = seating, start
        self._boot_timeout_s, self._said = boot_timeout_s, said
        self._settings: tuple[Need, int] | None = None
        self._seated: tuple[tuple[Actor, Seat], ...] = ()

    def of(self, settings: LearnerRanks) -> tuple[Actor, ...]:
        """The ranks that these settings ask for, rank 0 first."""
        wanted = (learners(settings), settings.num_threads)
        if self._settings != wanted:
            self.end()
            self._start_all(*wanted)
            self._settings = wanted
        return tuple(actor for actor, _ in self._seated)

    def end(self) -> None:
        for actor, seat in self._seated:
            self._seating.give_up(actor.handle, seat)
        self._seated, self._settings = (), None

    def status(self) -> list[dict[str, Any]]:
        """One row a rank, for people."""
        return [{"worker": actor.name, "host": seat.host.address} for actor, seat in self._seated]

    def _start_all(self, need: Need, num_threads: int) -> None:
        seats = self._seats_for(need)
        actors = [self._start(need, seat, LearnerWorker, num_threads) for seat in seats]
        self._seated = tuple(zip(actors, seats, strict=True))
        first = Call(actors[0], actors[0].handle.free_address.remote())
        (master,) = gather_ranks([first], "starting", self._boot_timeout_s, BOOT_TIMEOUT)
        ranks = [Rank(index, len(actors), master) for index in range(len(actors))]
        calls = [Call(a, a.handle.join.remote(rank)) for a, rank in zip(actors, ranks, strict=True)]
        gather_ranks(calls, "joining the group of learners", self._boot_timeout_s, BOOT_TIMEOUT)

    def _seats_for(self, need: Need) -> list[Seat]:
        """Of all ranks. What others hold, or a lost group has not given back yet, is waited for."""
        began, bound = time.monotonic(), self._boot_timeout_s
        seats = self._seating.take_all(need)
        if not seats:
            self._said(f"waiting up to {bound:g} s for room for {need.count} learner workers")
        while not seats and time.monotonic() - began < bound:
            time.sleep(POLL_S)
            seats = self._seating.take_all(need, anywhere=time.monotonic() - began > CHOOSY_S)
        if not seats:
            found = plan([need], hosts(free=True))
            why = "Ray did not give what it reports as free" if found.fits else found.what_is_missing()
            raise RunFailed(f"no room for the learners after {bound:g} s ({BOOT_TIMEOUT}): {why}")
        return seats
