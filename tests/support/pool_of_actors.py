"""A pool of real Ray actors on a Ray of one CPU, with what it told."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from plumbob.cluster.calls import Actor
from plumbob.cluster.failures import UnfitHost, WorkerLost
from plumbob.cluster.fleet.member import Member, WorkerLossRule
from plumbob.cluster.fleet.membership import Membership
from plumbob.cluster.fleet.pool import Pool
from plumbob.cluster.fleet.recovery.budget import RestartBudget
from plumbob.cluster.fleet.recovery.worker_loss_rules import worker_loss_rules
from plumbob.cluster.fleet.reservations import Reservations, end_actor, options
from plumbob.cluster.resources import ResourceNeed
from plumbob.configs.settings.workers import ClusterSettings
from tests.support.ray_worker import BlockingWorker
from tests.support.recording_listener import Watching

TIMEOUT_S = 120.0
NEED = ResourceNeed("rollout", "rollout.num_workers", 1, 0.25, 0.0, 0.0, spread=True)


class PoolOfActors:
    """A pool of four members at most, and its host (satisfies `PoolBackend`), with what it told.

    Args:
        kind: of the actors, which are given their log and `settings`.

    Attributes:
        draining: names of members whose hosts are draining.
    """

    def __init__(
        self, size: int, folder: Path, max_restarts: int = 2, kind: type = BlockingWorker, **settings: Any
    ) -> None:
        self.started: list[Member] = []
        self.watching = Watching()
        self._reservations, self._folder, self._kind, self._settings = Reservations(), folder, kind, settings
        self.reissued: list[int] = []
        self.draining: set[str] = set()
        self._restarts = RestartBudget(max_restarts)
        membership = Membership("rollout", size, self, TIMEOUT_S, rules())
        self.pool = Pool("rollout", membership, self, max_restarts)

    def start_worker(self) -> Member | None:
        reservation = self._reservations.reserve_one(NEED, {}, ())
        if reservation is None:
            return None
        name = f"rollout-{len(self.started)}"
        log = self._folder / f"{name}.log"
        actor = ray.remote(max_concurrency=4, **options(NEED, reservation, 1))(self._kind)
        self.started.append(Member(Actor(name, actor.remote(log, **self._settings), log), reservation))
        return self.started[-1]

    def stop_workers(self, members: Sequence[Member], are_lost: bool) -> None:
        for member in members:
            end_actor(member.actor.handle)
            self._reservations.release(member.reservation)

    def is_draining(self, member: Member) -> bool:
        return member.actor.name in self.draining

    def evict(self) -> None: ...

    def request_hosts(self, count: int) -> None:
        self._reservations.request_hosts(replace(NEED, count=count))

    def shortage(self) -> str:
        return "0.25 CPUs are missing"

    def worker_joined(self, member: Member) -> None: ...

    def worker_lost(self, member: Member, lost: WorkerLost, num_items: int) -> None:
        self.reissued.append(num_items)
        if isinstance(lost, UnfitHost) or self.is_draining(member):
            self.notify(str(lost).splitlines()[0])
        else:
            self.notify(self._restarts.record_loss(lost, f"rollout {member.slot}"))

    def poll_control(self) -> None: ...

    def notify(self, message: str) -> None:
        self.watching.notify("cluster", message)


def rules(call_timeout_s: float = TIMEOUT_S, boot_timeout_s: float = TIMEOUT_S) -> tuple[WorkerLossRule, ...]:
    return worker_loss_rules(ClusterSettings(call_timeout_s=call_timeout_s, boot_timeout_s=boot_timeout_s))
