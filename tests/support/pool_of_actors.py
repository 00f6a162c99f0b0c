"""A pool of real Ray actors on a Ray of one CPU, with what it told."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from plumbob.cluster.calls import Actor
from plumbob.cluster.failures import UnfitHost, WorkerLost
from plumbob.cluster.fleet.membership import Member, PoolHost
from plumbob.cluster.fleet.pool import Pool
from plumbob.cluster.fleet.recovery.budget import RestartBudget
from plumbob.cluster.fleet.reservations import Reservations, options
from plumbob.cluster.resources import Need
from tests.support.ray_worker import Worker
from tests.support.recording_listener import Watching

TIMEOUT_S = 120.0
NEED = Need("rollout", "rollout.num_workers", 1, 0.25, 0.0, 0.0, spread=True)


class Crew:
    """A pool of four seats at most, with what it told.

    Args:
        kind: of the actors, which are given their log and `settings`.

    Attributes:
        leaving: names of members whose hosts will be taken away.
    """

    def __init__(self, size: int, folder: Path, max_restarts: int = 2, kind: type = Worker, **settings: Any) -> None:
        self.hired: list[Member] = []
        self.watching = Watching()
        self._seating, self._folder, self._kind, self._settings = Reservations(), folder, kind, settings
        self.reissued: list[int] = []
        self.leaving: set[str] = set()
        self._restarts = RestartBudget(max_restarts)
        around = PoolHost(
            self._hire,
            self._dismiss,
            self._lost,
            lambda: None,
            lambda: "0.25 CPUs are missing",
            lambda: None,
            self._said,
            lambda member: member.actor.name in self.leaving,
            max_restarts,
        )
        self.pool = Pool("rollout", size, around, TIMEOUT_S, TIMEOUT_S)

    def _dismiss(self, members: Sequence[Member], is_lost: bool) -> None:
        for member in members:
            self._seating.give_up(member.actor.handle, member.seat)

    def _said(self, message: str) -> None:
        self.watching.notify("cluster", message)

    def _lost(self, member: Member, lost: WorkerLost, num_items: int) -> None:
        self.reissued.append(num_items)
        if isinstance(lost, UnfitHost) or member.actor.name in self.leaving:
            self._said(str(lost).splitlines()[0])
        else:
            self._restarts.spend(lost, f"rollout {member.place}", self._said)

    def _hire(self) -> Member | None:
        seat = self._seating.take_one(NEED, {}, ())
        if seat is None:
            return None
        name = f"rollout-{len(self.hired)}"
        log = self._folder / f"{name}.log"
        handle = ray.remote(max_concurrency=4, **options(NEED, seat, 1))(self._kind).remote(log, **self._settings)
        self.hired.append(Member(Actor(name, handle, log), seat))
        return self.hired[-1]
