"""Learners and rollout workers who share one Ray, as small actors."""

from itertools import count
from pathlib import Path
from typing import Any

import ray

from plumbob.cluster.calls import Actor
from plumbob.cluster.failures import LearnersLost, WorkerLost
from plumbob.cluster.fleet.learner_ranks import LearnerRanks
from plumbob.cluster.fleet.pool import Pool
from plumbob.cluster.fleet.pool_registry import PoolRegistry
from plumbob.cluster.fleet.reservations import Reservation, Reservations, options
from plumbob.cluster.fleet.work_queue import Preparation
from plumbob.cluster.nodes import hosts
from plumbob.cluster.resources import ResourceNeed, WorkerRole, rollout_need
from plumbob.configs.settings.workers import ClusterSettings, LearnerRankSettings, RolloutSettings
from tests.support.pool_of_actors import TIMEOUT_S
from tests.support.ray_worker import BlockingWorker
from tests.support.recording_listener import Watching

SMALL: dict[str, Any] = {"num_cpus": 0.25, "memory_gib": 0.0}
WANTED = RolloutSettings(num_workers=4, **SMALL)
LEARNERS = LearnerRankSettings(num_workers=2, **SMALL)
LOST = LearnersLost("learner-0 died")


class SmallFleet:
    """Learners and rollout workers on reservations of one Ray; all are small actors. Satisfies `FleetServices`."""

    def __init__(self, folder: Path) -> None:
        self.watching = Watching()
        self.joined: list[tuple[str, bool]] = []
        self.reservations = Reservations()
        self._folder, self._numbers = folder, count()
        cluster = ClusterSettings(boot_timeout_s=TIMEOUT_S)
        self.pools = PoolRegistry(cluster, self.reservations, self)
        self.ranks = LearnerRanks(self.reservations, self, TIMEOUT_S)

    def pool(self) -> Pool:
        opening = Preparation(lambda actor: actor.handle.double.remote([1]), "opening")
        return self.pools.get_or_open(rollout_need(WANTED), WANTED, BlockingWorker, "model", opening)

    def reserved(self) -> list[Reservation]:
        """By the learners."""
        return list(self.ranks._reserved)

    def end(self) -> None:
        self.pools.close(self.pools.needs())
        self.ranks.stop()

    @property
    def said(self) -> list[str]:
        return [message for _, message in self.watching.notes]

    def start_actor(self, need: ResourceNeed, reservation: Reservation, kind: type, num_threads: int) -> Actor:
        name = f"{need.role}-{next(self._numbers)}"
        log = self._folder / f"{name}.log"
        return Actor(name, ray.remote(**options(need, reservation, 1))(BlockingWorker).remote(log), log)

    def evict(self, need: ResourceNeed) -> None:
        self.pools.evict(need)

    def worker_joined(self, role: WorkerRole, worker: str, host: str, is_replacement: bool) -> None:
        self.joined.append((worker, is_replacement))

    def worker_lost(self, lost: WorkerLost, slot: str) -> None: ...

    def items_reissued(self, role: WorkerRole, num_items: int) -> None: ...

    def poll_control(self) -> None: ...

    def notify(self, message: str) -> None:
        self.watching.notify("cluster", message)


def free_cpus() -> float:
    return sum(host.free.cpus for host in hosts(free=True))


def work(pool: Pool, num_items: int) -> list[int]:
    return pool.work(range(num_items), 1, lambda actor, chunk: actor.handle.double.remote(list(chunk)), "doubling")
