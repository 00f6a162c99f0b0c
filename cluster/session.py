"""A connection to Ray and the workers on it, which later stages and runs use again where they fit."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any, Self

import ray

from plumbob.cluster.admission import fitting_plan
from plumbob.cluster.calls import BOOT_TIMEOUT, Actor, Call, gather_ranks
from plumbob.cluster.connection import connect
from plumbob.cluster.control_actor import ControlClient
from plumbob.cluster.failures import LearnersLost, WorkerLost
from plumbob.cluster.fleet.autoscale import Scaling
from plumbob.cluster.fleet.learner_group import LearnerRanks
from plumbob.cluster.fleet.pool_registry import PoolRegistry
from plumbob.cluster.fleet.recovery.budget import RestartBudget
from plumbob.cluster.fleet.reservations import Reservation, Reservations, options
from plumbob.cluster.fleet.work_queue import Preparation
from plumbob.cluster.nodes import addresses, draining_nodes
from plumbob.cluster.placement import plan
from plumbob.cluster.resources import Need, WorkerRole, rollouts, scorers
from plumbob.cluster.worker_groups import LearnerGroup, SamplerGroup, ScorerGroup
from plumbob.cluster.workers.rollout_worker import RolloutWorker
from plumbob.cluster.workers.same_versions import installed
from plumbob.cluster.workers.scorer_worker import ScorerWorker
from plumbob.cluster.workers.shared_storage import StorageProbe
from plumbob.configs.resolved_copy import RESOLVED_FILE
from plumbob.configs.runs import LearnerRun, PpoRun
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.configs.settings.workers import ClusterSettings, LearnerRankSettings, RolloutSettings
from plumbob.core.errors import RunStopped
from plumbob.driver.run_folder.run_status import STATUS_FILE, StatusListener
from plumbob.rollout.samplers.sampler import SamplerSpec
from plumbob.trainers.metrics.metrics_log import Listener, StepRecord
from plumbob.trainers.online.sample_ledger import Ledger

BATCHES_PER_CALL = 4
"""Forwards of a scorer between two looks at who is free."""


class Session:
    """The workers of a run, or of several runs one after the other.

    Args:
        logs: folder of the workers' logs, on storage that every host can read.

    Attributes:
        cluster: where they are.
        ledger: what became of every response of the run's last stage of PPO; None before it.
    """

    def __init__(self, cluster: ClusterSettings, logs: Path, listener: Listener) -> None:
        self.cluster, self._logs, self._listener = cluster, logs.resolve(), listener
        self._mark = StorageProbe(self._logs)
        self._numbers = count()
        self._seating = Reservations()
        self._pools = PoolRegistry(
            cluster, self._seating, self._start, self.attend, self._said, self._lost, self._reissued
        )
        self._ranks = LearnerRanks(
            self._seating, self._start, self._pools.make_room, cluster.boot_timeout_s, self._said
        )
        self._restarts = RestartBudget(cluster.max_restarts)
        self._steering: ControlClient | None = None
        self._attending = threading.Lock()
        self._watched: StatusListener | None = None
        self._scaling: Scaling | None = None
        self._is_stopping = False
        self._least: tuple[Need, ...] = ()
        self.ledger: Ledger | None = None

    def __enter__(self) -> Self:
        connect(self.cluster)
        return self

    def __exit__(self, *_: object) -> None:
        self._pools.close(self._pools.needs())
        self._ranks.end()
        ray.shutdown()
        self._mark.remove()

    # ---------------------------------------------------------------------------------------------------------- one run

    @contextmanager
    def running(self, name: str, needs: tuple[Need, ...], folder: Path, listener: Listener) -> Iterator[StatusListener]:
        """A run that may be watched and steered from elsewhere while it lasts; gives the listener that it tells.

        Raises:
            UserError: it does not fit, or a run of that name is running on the cluster; for one that has begun before
                after `cluster.wait_s`.
        """
        self._listener = listener
        self.check(needs)
        has_begun = (folder / RESOLVED_FILE).exists()  # Who goes on with a run cannot choose another name.
        self._steering = ControlClient(name, self._said, self.cluster.wait_s if has_begun else 0.0)
        self._restarts = RestartBudget(self.cluster.max_restarts)
        self._watched = StatusListener(listener, folder / STATUS_FILE, self._details, self._stepped)
        self._is_stopping = False
        self._least = tuple(need if need.role == "learner" else replace(need, count=1) for need in needs)
        try:
            yield self._watched
        finally:
            self._steering.close()
            self._steering = self._watched = self._scaling = self.ledger = None

    def attend(self) -> None:
        """Tell those who watch from elsewhere where the run stands, and do what they want. Never waits."""
        if self._attending.acquire(blocking=False):  # Otherwise another thread is at it.
            try:
                self._attend()
            finally:
                self._attending.release()

    def _attend(self) -> None:
        if self._steering is None or self._watched is None:
            return
        rollout = self._pools.get("rollout")
        wanted = self._steering.exchange(self._watched.status, is_scalable=rollout is not None)
        self._is_stopping = wanted.stop
        self._vacate(wanted.leaving | draining_nodes())
        if rollout is not None and wanted.num_rollout_workers is not None:
            rollout.pool.size = wanted.num_rollout_workers

    def _vacate(self, leaving: frozenset[str]) -> None:
        """Let workers of pools leave these nodes. One that came back has another id."""
        new = leaving - self._seating.leaving
        if new:
            self._seating.leaving |= new
            where = ", ".join(addresses(new))
            self._said(f"{where} will be taken away: workers there end what they are at, others start elsewhere")

    def may_go_on(self) -> None:
        """Called where little would be lost. Raises RunStopped when somebody wants the run to stop."""
        self.attend()
        if self._is_stopping:
            raise RunStopped("the run was asked to stop")

    def _stepped(self, record: StepRecord) -> None:
        self._restarts.stepped(record.stage, record.step)
        rollout = self._pools.get("rollout")
        if self._scaling is not None and rollout is not None:
            size = self._scaling.after(record, rollout.pool.size, rollout.pool.status())
            if size != rollout.pool.size:
                self._said(f"rollout.autoscale: {rollout.pool.size} rollout workers become {size}")
                rollout.pool.size = size

    def _details(self) -> dict[str, Any]:
        rollout = self._pools.get("rollout")
        return {
            "workers": {"learner": self._ranks.status(), **self._pools.status()},
            "rollout": None if rollout is None else asdict(rollout.need) | {"count": rollout.pool.size},
            "least": [asdict(need) for need in self._least],
            "autoscale": None if self._scaling is None else self._scaling.bounds,
            "workers_lost": self._restarts.total,
            "answers": None if self.ledger is None else self.ledger.as_dict(),
        }

    def _said(self, message: str) -> None:
        (self._watched or self._listener).said("cluster", message)

    # ---------------------------------------------------------------------------------------------------------- groups

    def learners(self, run: LearnerRun) -> LearnerGroup:
        """The learners of a run, its model loaded; processes that an earlier stage left are used again."""
        self.attend()  # A host may be known by now to be taken away.
        actors = self._ranks.of(run.learner)
        calls = [Call(actor, actor.handle.build.remote(run)) for actor in actors]
        gather_ranks(calls, "loading the model", self.cluster.boot_timeout_s, BOOT_TIMEOUT)
        # A run that samples stops before it does that again: what it has sampled is learnt from first.
        before_update = self.attend if isinstance(run, PpoRun) else self.may_go_on
        return LearnerGroup(actors, self.cluster.call_timeout_s, before_update, self._pools.abandon)

    def samplers(self, spec: SamplerSpec, rollout: RolloutSettings) -> SamplerGroup:
        """Rollout workers with that model; `spec.worker` is replaced by each worker's own name."""
        opening = Preparation(
            lambda actor: actor.handle.open.remote(replace(spec, worker=actor.name)), "starting its engine"
        )
        pool = self._pools.opened(rollouts(rollout), rollout, RolloutWorker, spec, opening)
        if rollout.autoscale is not None and self._scaling is None:
            self._scaling = Scaling(rollout.autoscale)
        return SamplerGroup(pool, rollout.chunk_size, self.may_go_on)

    def scorers(self, scorer: ScorerSettings) -> ScorerGroup:
        """Scorers with that reward."""
        reward = scorer.reward
        opening = Preparation(lambda actor: actor.handle.open.remote(reward), "loading the reward model")
        pool = self._pools.opened(scorers(scorer), scorer, ScorerWorker, reward, opening)
        return ScorerGroup(pool, reward.batch_size * BATCHES_PER_CALL)

    def in_learner(self, settings: LearnerRankSettings, function: Callable[..., None], *arguments: Any) -> None:
        """Run a function in rank 0's process, such as one that makes a model: the driver loads no model package."""
        first = self._ranks.of(settings)[0]
        call = Call(first, first.handle.apply.remote(function, arguments))
        gather_ranks([call], f"running {function.__name__}", self.cluster.call_timeout_s)

    def replace_learners(self, lost: LearnersLost) -> None:
        """End what is left of a group that lost a rank; the next use starts another. RunFailed past the budget."""
        self._ranks.lost(lost)
        self._lost(lost, "learners")

    def _lost(self, lost: WorkerLost, place: str) -> None:
        self._restarts.spend(lost, place, self._said)

    def _reissued(self, role: WorkerRole, num_items: int) -> None:
        if role == "rollout" and self.ledger is not None:
            self.ledger.reissued(num_items)

    def _start(self, need: Need, seat: Reservation, kind: type, num_threads: int) -> Actor:
        name = f"{need.role}-{next(self._numbers)}"
        log = self._logs / f"{name}.log"
        start = ray.remote(**options(need, seat, num_threads))(kind).remote
        return Actor(name, start(log, num_threads, installed(), self._mark.left()), log)

    # ------------------------------------------------------------------------------------------------------- resources

    def check(self, needs: tuple[Need, ...]) -> None:
        """Compare what a run needs with the whole cluster, waiting `cluster.wait_s` for more to join one that runs.

        Workers that an earlier run left are used again; those of other roles are ended where they are in the way.

        Raises:
            UserError: it does not fit; says what is missing and what would fit.
        """

        fitting = fitting_plan(lambda: plan(needs, self._seating.open_to_us()), self.cluster, self._said)
        self._seating.follow(fitting)
        used = {need.role for need in needs}
        unused = {role: need for role, need in self._pools.needs().items() if role not in used}
        if not plan((*needs, *unused.values()), self._seating.open_to_us()).fits:
            self._pools.close(unused)
