"""The pools of a session: one a role, used again by later stages and runs where they fit (PoolRegistry)."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from plumbob.cluster.fleet.membership import Membership
from plumbob.cluster.fleet.pool import Pool
from plumbob.cluster.fleet.pool_backend import FleetServices
from plumbob.cluster.fleet.recovery.eviction import evict_for
from plumbob.cluster.fleet.recovery.worker_loss_rules import worker_loss_rules
from plumbob.cluster.fleet.reservations import Reservations
from plumbob.cluster.fleet.role_workers import RoleWorkers
from plumbob.cluster.fleet.work_queue import Preparation
from plumbob.cluster.resources import ResourceNeed, WorkerRole
from plumbob.cluster.run_status import WorkerStatus
from plumbob.configs.settings.workers import ClusterSettings, WorkerGroupSettings


@dataclass
class PoolEntry:
    """A pool with what it was made for, and the model that it has open."""

    pool: Pool
    need: ResourceNeed
    num_threads: int
    model: Any = None


class PoolRegistry:
    """Those that are there, by role."""

    def __init__(self, cluster: ClusterSettings, reservations: Reservations, fleet: FleetServices) -> None:
        self._cluster, self._reservations, self._fleet = cluster, reservations, fleet
        self._entries: dict[WorkerRole, PoolEntry] = {}

    def get(self, role: WorkerRole) -> PoolEntry | None:
        return self._entries.get(role)

    def status(self) -> dict[WorkerRole, tuple[WorkerStatus, ...]]:
        """Role -> one row a worker, for people."""
        return {role: entry.pool.status() for role, entry in self._entries.copy().items()}

    def needs(self) -> dict[WorkerRole, ResourceNeed]:
        return {role: entry.need for role, entry in self._entries.copy().items()}

    def abandon(self) -> None:
        """Let work that is under way in other threads fail."""
        for entry in self._entries.copy().values():
            entry.pool.abandon()

    def close(self, roles: Iterable[WorkerRole]) -> None:
        for role in list(roles):
            closed = self._entries.pop(role, None)
            if closed is not None:
                closed.pool.close()

    def get_or_open(
        self, need: ResourceNeed, workers: WorkerGroupSettings, actor_class: type, model: Any, opening: Preparation
    ) -> Pool:
        """The pool of that role with that model: one that is there is used again where its workers are of that size."""
        entry = self._entries.get(need.role)
        if entry is not None and not _same_size(entry, need, workers):
            self.close([need.role])
            entry = None
        if entry is None:
            entry = PoolEntry(self.make_pool(need, workers.threads, actor_class), need, workers.threads)
            self._entries[need.role] = entry
        if need.count != entry.need.count:
            entry.need, entry.pool.target_size = need, need.count
        if model != entry.model:
            entry.pool.open(opening)
            entry.model = model
        return entry.pool

    def make_pool(self, need: ResourceNeed, num_threads: int, actor_class: type) -> Pool:
        """A pool that no later stage will find; whoever made it closes it."""
        backend = RoleWorkers(
            need, num_threads, actor_class, self._reservations, self._fleet, self._cluster.boot_timeout_s
        )
        rules = worker_loss_rules(self._cluster)
        membership = Membership(need.role, need.count, backend, self._cluster.boot_timeout_s, rules)
        return Pool(need.role, membership, backend, self._cluster.max_restarts)

    def evict(self, need: ResourceNeed) -> None:
        """Preempt the fewest pool workers that make the group fit, never a pool's last."""
        pools = [entry.pool.membership for entry in self._entries.copy().values()]
        evict_for(need, pools, self._reservations, self._fleet.notify)


def _same_size(entry: PoolEntry, need: ResourceNeed, workers: WorkerGroupSettings) -> bool:
    return (replace(entry.need, count=need.count), entry.num_threads) == (need, workers.threads)
