"""A connection to Ray and the workers on it, which later stages and runs use again where they fit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Protocol, Self

import ray

from plumbob.cluster.admission import fitting_plan
from plumbob.cluster.calls import BOOT_TIMEOUT, Actor, Call, gather_ranks
from plumbob.cluster.connection import disconnect, start_or_join
from plumbob.cluster.failures import LearnersLost, WorkerLost
from plumbob.cluster.fleet.learner_ranks import LearnerRanks
from plumbob.cluster.fleet.pool_registry import PoolEntry, PoolRegistry
from plumbob.cluster.fleet.recovery.budget import RestartBudget
from plumbob.cluster.fleet.reservations import Reservation, Reservations, options
from plumbob.cluster.fleet.work_queue import Preparation
from plumbob.cluster.nodes import hosts
from plumbob.cluster.placement import Plan, plan
from plumbob.cluster.resources import ResourceNeed, WorkerRole, rollout_need, scorer_need
from plumbob.cluster.run_status import WorkerStatus
from plumbob.cluster.worker_groups import LearnerGroup, SamplerGroup, ScorerGroup
from plumbob.cluster.workers.rollout_worker import RolloutWorker
from plumbob.cluster.workers.same_versions import installed
from plumbob.cluster.workers.scorer_worker import ScorerWorker
from plumbob.cluster.workers.shared_storage import StorageProbe
from plumbob.configs.base import IsFunction
from plumbob.configs.runs import LearnerRun
from plumbob.configs.schema import marked_texts
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.configs.settings.workers import ClusterSettings, RolloutSettings
from plumbob.core.activities import activities
from plumbob.core.programs.function_source import source_digests
from plumbob.rollout.samplers.sampler import SamplerSpec
from plumbob.trainers.metrics.step_record import Listener

BATCHES_PER_CALL = 4
"""Forwards of a scorer between two looks at who is free."""


class RunHooks(Protocol):
    """What a session tells the run that uses its workers, and asks of it. Called from several threads."""

    def notify(self, message: str) -> None:
        """A sentence for the user: what is being waited for, what was replaced."""

    def poll_control(self) -> None:
        """Called while workers are waited for. Never waits."""

    def begin_work(self) -> None:
        """Called before work whose end is worth waiting for. Raises RunStopped when the run shall stop."""

    def samplers_opened(self, rollout: RolloutSettings) -> None:
        """There are rollout workers now."""

    def worker_lost(self, lost: WorkerLost, slot: str) -> None:
        """Called before it is replaced. Raises RunFailed when too many were lost in that slot."""

    def responses_reissued(self, count: int) -> None:
        """Responses that were given to another rollout worker, because theirs was lost."""

    def worker_joined(self, role: WorkerRole, worker: str, host: str, is_replacement: bool) -> None:
        """One more of the role has answered."""

    def published(self, version: int) -> None:
        """A policy version that rollout workers sample from, from now on."""


class UncontrolledRun:
    """Work that nobody can watch or stop from elsewhere, such as `plumbob eval`: messages, and a budget."""

    def __init__(self, listener: Listener, max_restarts: int) -> None:
        self._listener, self._budget = listener, RestartBudget(max_restarts)

    def notify(self, message: str) -> None:
        self._listener.notify("cluster", message)

    def poll_control(self) -> None: ...

    def begin_work(self) -> None: ...

    def samplers_opened(self, rollout: RolloutSettings) -> None: ...

    def worker_lost(self, lost: WorkerLost, slot: str) -> None:
        self.notify(self._budget.record_loss(lost, slot))

    def responses_reissued(self, count: int) -> None: ...

    def worker_joined(self, role: WorkerRole, worker: str, host: str, is_replacement: bool) -> None: ...

    def published(self, version: int) -> None: ...


class Session:
    """The workers of a run, or of several runs one after the other.

    Args:
        logs: folder of the workers' logs, on storage that every host can read.
        listener: hears of the workers while they serve no run that can be controlled.

    Attributes:
        cluster: where they are.
    """

    def __init__(self, cluster: ClusterSettings, logs: Path, listener: Listener) -> None:
        self.cluster, self._logs = cluster, logs.resolve()
        self._hooks: RunHooks = UncontrolledRun(listener, cluster.max_restarts)
        self._probe = StorageProbe(self._logs)
        self._numbers = count()
        self._reservations = Reservations()
        self._pools = PoolRegistry(cluster, self._reservations, fleet=self)
        self._ranks = LearnerRanks(self._reservations, self, cluster.boot_timeout_s)

    def __enter__(self) -> Self:
        address = self.cluster.address
        with activities.during("starting Ray" if address == "local" else f"joining the Ray cluster at {address}"):
            start_or_join(self.cluster)
        return self

    def __exit__(self, *_: object) -> None:
        with activities.during("ending the workers"):
            self._pools.close(self._pools.needs())
            self._ranks.stop()
            disconnect()
            self._probe.remove()

    # -------------------------------------------------------------------------------------------------------- the run

    @contextmanager
    def attached(self, hooks: RunHooks) -> Iterator[None]:
        """From now to the end, tell the run behind `hooks` what happens to the workers, and ask it what to do."""
        before, self._hooks = self._hooks, hooks
        try:
            yield
        finally:
            self._hooks = before

    @property
    def rollout_pool(self) -> PoolEntry | None:
        """The rollout workers; None while there are none."""
        return self._pools.get("rollout")

    def workers(self) -> dict[WorkerRole, tuple[WorkerStatus, ...]]:
        """Those that there are, by role."""
        return {"learner": self._ranks.status(), **self._pools.status()}

    def drain_nodes(self, nodes: frozenset[str]) -> frozenset[str]:
        """Drain the workers of pools on these nodes; gives the nodes that were not draining already.

        Args:
            nodes: ids of nodes. A host that comes back has another.
        """
        new = nodes - self._reservations.draining
        self._reservations.draining |= new
        return new

    def poll_control(self) -> None:
        self._hooks.poll_control()

    def begin_work(self) -> None:
        self._hooks.begin_work()

    def notify(self, message: str) -> None:
        self._hooks.notify(message)

    # ---------------------------------------------------------------------------------------------------------- groups

    def start_learners(self, run: LearnerRun) -> LearnerGroup:
        """The learners of a run, its model loaded; processes that an earlier stage left are used again."""
        self.poll_control()  # A host may be known by now to be draining.
        actors = self._ranks.get_or_start(run.learner)
        calls = [Call(actor, actor.handle.build.remote(run)) for actor in actors]
        gather_ranks(calls, "loading the model", self.cluster.boot_timeout_s, BOOT_TIMEOUT)
        # A run that samples stops before it does that again: what it has sampled is learnt from first.
        before_update = self.poll_control if run.samples_for_updates else self.begin_work
        return LearnerGroup(actors, self.cluster.call_timeout_s, before_update, self._pools.abandon)

    def end_learners(self) -> None:
        """End the ranks that a later run would use again: what they have taken of memory stays theirs until then."""
        self._ranks.stop()

    def start_samplers(self, spec: SamplerSpec, rollout: RolloutSettings) -> SamplerGroup:
        """Rollout workers with that model; `spec.worker` is replaced by each worker's own name."""
        environment = spec.environment
        sources = {} if environment is None else source_digests(marked_texts(environment, IsFunction))
        opening = Preparation(
            lambda actor: actor.handle.open.remote(replace(spec, worker=actor.name), sources), "starting its engine"
        )
        pool = self._pools.get_or_open(rollout_need(rollout), rollout, RolloutWorker, (spec, sources), opening)
        self._hooks.samplers_opened(rollout)
        return SamplerGroup(pool, rollout.chunk_size, self.begin_work, self._hooks.published)

    def start_scorers(self, scorer: ScorerSettings, folder: Path | None = None) -> ScorerGroup:
        """Scorers with that reward; answers that it must not ask for twice are kept in `folder`, for all of them."""
        reward, sources = scorer.reward, source_digests(marked_texts(scorer, IsFunction))
        kept = folder.resolve() if folder is not None and reward.keeps_answers else None
        opening = Preparation(lambda actor: actor.handle.open.remote(reward, sources, kept), "loading the reward")
        pool = self._pools.get_or_open(scorer_need(scorer), scorer, ScorerWorker, (reward, sources, kept), opening)
        return ScorerGroup(pool, reward.batch_size * BATCHES_PER_CALL)

    def replace_learners(self, lost: LearnersLost) -> None:
        """End what is left of a group that lost a rank; the next use starts another. RunFailed past the budget."""
        self._ranks.stop_lost(lost)
        self.worker_lost(lost, "learners")

    # --------------------------------------------------------------------------- what the fleet asks: `FleetServices`

    def worker_lost(self, lost: WorkerLost, slot: str) -> None:
        self._hooks.worker_lost(lost, slot)

    def worker_joined(self, role: WorkerRole, worker: str, host: str, is_replacement: bool) -> None:
        self._hooks.worker_joined(role, worker, host, is_replacement)

    def items_reissued(self, role: WorkerRole, num_items: int) -> None:
        if role == "rollout":
            self._hooks.responses_reissued(num_items)

    def evict(self, need: ResourceNeed) -> None:
        self._pools.evict(need)

    def start_actor(self, need: ResourceNeed, reservation: Reservation, actor_class: type, num_threads: int) -> Actor:
        name = f"{need.role}-{next(self._numbers)}"
        log = self._logs / f"{name}.log"
        log_start = log.stat().st_size if log.exists() else 0
        start = ray.remote(**options(need, reservation, num_threads))(actor_class).remote
        return Actor(name, start(log, num_threads, installed(), self._probe.write()), log, log_start)

    # ------------------------------------------------------------------------------------------------------- resources

    def admit(self, needs: tuple[ResourceNeed, ...]) -> None:
        """Compare what a run needs with the whole cluster; `cluster.wait_s` waits for more to join, or others to end.

        Workers that an earlier run left are used again; those of other roles are ended where they are in the way.

        Raises:
            UserError: it does not fit; says what is missing, who has it, and what would fit.
        """

        def found() -> Plan:
            current = plan(needs, self._reservations.free_plus_reserved(), hosts(free=False))
            if not current.fits:
                self._reservations.request_hosts(*needs)
            return current

        try:
            self._reservations.use_plan(fitting_plan(found, self.cluster, self.notify))
        finally:
            self._reservations.request_hosts(*(replace(need, count=0) for need in needs))
        used = {need.role for need in needs}
        unused = {role: need for role, need in self._pools.needs().items() if role not in used}
        if not plan((*needs, *unused.values()), self._reservations.free_plus_reserved()).fits:
            self._pools.close(unused)
