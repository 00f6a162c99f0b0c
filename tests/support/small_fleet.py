"""Learners and rollout workers who share one Ray, as small actors."""

from itertools import count
from pathlib import Path
from typing import Any

import ray

from plumbob.cluster.calls import Actor
from plumbob.cluster.failures import LearnersLost
from plumbob.cluster.fleet.learner_group import LearnerRanks
from plumbob.cluster.fleet.pool import Pool
from plumbob.cluster.fleet.pool_registry import PoolRegistry
from plumbob.cluster.fleet.reservations import Reservation, Reservations, options
from plumbob.cluster.fleet.work_queue import Preparation
from plumbob.cluster.nodes import hosts
from plumbob.cluster.resources import Need, rollouts
from plumbob.configs.settings.workers import ClusterSettings, LearnerRankSettings, RolloutSettings
from tests.support.pool_of_actors import TIMEOUT_S
from tests.support.ray_worker import Worker
from tests.support.recording_listener import Watching

SMALL: dict[str, Any] = {"num_cpus": 0.25, "memory_gib": 0.0}
WANTED = RolloutSettings(num_workers=4, **SMALL)
LEARNERS = LearnerRankSettings(num_workers=2, **SMALL)
LOST = LearnersLost("learner-0 died")


class House:
    """Learners and rollout workers on the seats of one Ray; all are small actors."""

    def __init__(self, folder: Path) -> None:
        self.watching = Watching()
        self.seating = Reservations()
        self._folder, self._numbers = folder, count()
        nobody: Any = lambda *_: None  # noqa: E731
        cluster = ClusterSettings(boot_timeout_s=TIMEOUT_S)
        self.pools = PoolRegistry(cluster, self.seating, self._start, nobody, self._said, nobody, nobody)
        self.ranks = LearnerRanks(self.seating, self._start, self.pools.make_room, TIMEOUT_S, self._said)

    def pool(self) -> Pool:
        opening = Preparation(lambda actor: actor.handle.double.remote([1]), "opening")
        return self.pools.opened(rollouts(WANTED), WANTED, Worker, "model", opening)

    def seats(self) -> list[Reservation]:
        return list(self.ranks._seats)

    def end(self) -> None:
        self.pools.close(self.pools.needs())
        self.ranks.end()

    @property
    def said(self) -> list[str]:
        return [message for _, message in self.watching.notes]

    def _said(self, message: str) -> None:
        self.watching.notify("cluster", message)

    def _start(self, need: Need, seat: Reservation, kind: type, num_threads: int) -> Actor:
        name = f"{need.role}-{next(self._numbers)}"
        log = self._folder / f"{name}.log"
        return Actor(name, ray.remote(**options(need, seat, 1))(Worker).remote(log), log)


def free_cpus() -> float:
    return sum(host.free.cpus for host in hosts(free=True))


def work(pool: Pool, num_items: int) -> list[int]:
    return pool.work(range(num_items), 1, lambda actor, chunk: actor.handle.double.remote(list(chunk)), "doubling")
