"""The groups of a run over stub workers: the driver's own pools and groups, with one process behind each role."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from benchmarks.driver.stub_workers import StubRanks, StubSamplers, StubScorers
from benchmarks.driver.traffic import CallTarget, Traffic
from plumbob.cluster.calls import Actor
from plumbob.cluster.failures import WorkerLost
from plumbob.cluster.fleet.member import Member
from plumbob.cluster.fleet.membership import Membership
from plumbob.cluster.fleet.pool import Pool
from plumbob.cluster.fleet.recovery.worker_loss_rules import worker_loss_rules
from plumbob.cluster.resources import Host, ResourceAmount, WorkerRole
from plumbob.cluster.worker_groups import LearnerGroup, SamplerGroup, SamplersApart, ScorerGroup
from plumbob.configs.settings.workers import ClusterSettings
from plumbob.core.errors import RunFailed
from plumbob.models.adapter import Adapter
from plumbob.trainers.online.online_loop import OnlineWorkers

NO_LOG = Path("/nonexistent")
TIMEOUT_S = 600.0


class StubHost:
    """Where a stub worker is said to be: on this host."""

    def __init__(self) -> None:
        node = ray.get_runtime_context().get_node_id()
        self.host = Host("127.0.0.1", node, ResourceAmount(0.0, 0.0, 0.0))


class StubBackend:
    """Satisfies `PoolBackend`: workers that are there at once and stay."""

    def __init__(self, role: WorkerRole, actor: Any, traffic: Traffic) -> None:
        self._role, self._actor, self._traffic = role, actor, traffic
        self._num_started = 0

    def start_worker(self) -> Member | None:
        name = f"{self._role}-{self._num_started}"
        self._num_started += 1
        place: Any = StubHost()
        return Member(Actor(name, CallTarget(self._actor, self._traffic), NO_LOG), place)

    def stop_workers(self, members: Sequence[Member], are_lost: bool) -> None: ...

    def is_draining(self, member: Member) -> bool:
        return False

    def evict(self) -> None: ...

    def request_hosts(self, count: int) -> None: ...

    def shortage(self) -> str:
        return ""

    def worker_joined(self, member: Member) -> None: ...

    def worker_lost(self, member: Member, lost: WorkerLost, num_items: int) -> None:
        raise RunFailed("a stub worker was lost") from lost

    def poll_control(self) -> None: ...

    def notify(self, message: str) -> None: ...


class StubLearners(LearnerGroup):
    """All stub ranks as one; their policy is a version's number."""

    def policy_weights(self, version: int) -> Adapter:
        return Adapter(version, {}, {})


def open_fleet(num_workers: int, num_tokens: int, chunk_size: int, score_chunk: int, traffic: Traffic) -> OnlineWorkers:
    """So many rollout workers, scorers and learner ranks each."""

    def pool(role: WorkerRole, kind: type, *arguments: Any) -> Pool:
        actor = ray.remote(num_cpus=0)(kind).remote(*arguments)
        backend, rules = StubBackend(role, actor, traffic), worker_loss_rules(ClusterSettings())
        return Pool(role, Membership(role, num_workers, backend, TIMEOUT_S, rules), backend, 1)

    ranks = ray.remote(num_cpus=0)(StubRanks).remote()
    actors = [
        Actor(f"learner-{rank}", CallTarget(ranks, traffic, is_learner=True, first=(rank, num_workers)), NO_LOG)
        for rank in range(num_workers)
    ]
    return OnlineWorkers(
        SamplersApart(SamplerGroup(pool("rollout", StubSamplers, num_tokens), chunk_size, lambda: None)),
        ScorerGroup(pool("scorer", StubScorers), score_chunk),
        StubLearners(actors, TIMEOUT_S, lambda: None, lambda: None),
    )
