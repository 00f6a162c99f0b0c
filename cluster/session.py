"""A connection to Ray and the worker groups on it, which later stages of a pipeline use again where they fit."""

import os
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import ray
import torch

from cluster.groups import LearnerGroup, SamplerGroup, ScorerGroup
from cluster.health import BOOT_TIMEOUT, Actor, Call, gather, settle, wait_until
from cluster.placement import Capacity, Need, Plan
from cluster.workers import LearnerWorker, RolloutWorker, ScorerWorker
from configs.errors import UserError
from configs.roles import Cluster, LearnerRanks, Rollout, Scorer
from configs.schema import LearnerRun
from rollout.sampler import SamplerSpec
from trainers.engine import Rank
from trainers.metrics import Listener

NAMESPACE = "plumbob"

PROBE_S = 5.0
"""How long a Ray's port has to answer."""

CLOSE_S = 5.0
"""How long rollout workers have to end their engines; one that is busy or dead is killed all the same."""


class Session:
    """Worker groups by what they were made from.

    Args:
        logs: folder of the workers' logs, on storage that every host can read.
    """

    def __init__(self, cluster: Cluster, logs: Path, listener: Listener) -> None:
        self._cluster, self._logs, self._listener = cluster, logs.resolve(), listener
        self._groups: dict[tuple[Any, ...], Sequence[Actor]] = {}
        self._numbers = count()

    def __enter__(self) -> Self:
        connect(self._cluster)
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._groups):
            self._end(key)
        ray.shutdown()

    # ---------------------------------------------------------------------------------------------------------- groups

    def learners(self, run: LearnerRun) -> LearnerGroup:
        """The learners of a run, its model loaded; processes that an earlier stage left are used again."""
        actors = self._learner_actors(run.learner)
        calls = [Call(actor, actor.handle.build.remote(run)) for actor in actors]
        gather(calls, "loading the model", self._cluster.boot_timeout_s, BOOT_TIMEOUT)
        return LearnerGroup(actors, self._cluster.call_timeout_s)

    def samplers(self, spec: SamplerSpec, rollout: Rollout) -> SamplerGroup:
        """Rollout workers with that model; `spec.worker` is replaced by each worker's own name."""
        key = ("rollout", spec, rollout.num_workers, rollout.num_cpus, rollout.num_gpus)
        if key not in self._groups:
            self._make_room("rollout")
            options = resources(rollout.num_cpus, rollout.num_gpus * rollout.tensor_parallel, rollout.num_threads)
            actors = [
                self._start("rollout", lambda log: start_actor(RolloutWorker, options, log))
                for _ in range(rollout.num_workers)
            ]
            self._groups[key] = actors
            calls = [Call(a, a.handle.open.remote(named(spec, a.name))) for a in actors]
            gather(calls, "starting its engine", self._cluster.boot_timeout_s, BOOT_TIMEOUT)
        return SamplerGroup(self._groups[key], rollout.chunk_size, self._cluster.call_timeout_s)

    def scorers(self, scorer: Scorer, role: Literal["scorer", "judge"] = "scorer") -> ScorerGroup:
        """Scorers with that reward model."""
        key = (role, scorer)
        if key not in self._groups:
            self._make_room(role)
            options = resources(scorer.num_cpus, scorer.num_gpus, scorer.num_threads)
            actors = [
                self._start(role, lambda log: start_actor(ScorerWorker, options, log, scorer.num_threads))
                for _ in range(scorer.num_workers)
            ]
            self._groups[key] = actors
            calls = [Call(a, a.handle.open.remote(scorer)) for a in actors]
            gather(calls, "loading the reward model", self._cluster.boot_timeout_s, BOOT_TIMEOUT)
        return ScorerGroup(self._groups[key], scorer.batch_size * 4, self._cluster.call_timeout_s)

    def in_learner(self, settings: LearnerRanks, function: Callable[..., None], *arguments: Any) -> None:
        """Run a function in rank 0's process, such as one that makes a model: the driver loads no model package."""
        first = self._learner_actors(settings)[0]
        call = Call(first, first.handle.apply.remote(function, arguments))
        gather([call], f"running {function.__name__}", self._cluster.call_timeout_s)

    def _learner_actors(self, settings: LearnerRanks) -> Sequence[Actor]:
        key = ("learner", settings.num_workers, settings.num_threads, settings.num_cpus, settings.num_gpus)
        if key not in self._groups:
            self._make_room("learner")
            self._groups[key] = self._start_learners(settings)
        return self._groups[key]

    def _start_learners(self, settings: LearnerRanks) -> list[Actor]:
        options = resources(settings.num_cpus, settings.num_gpus, settings.num_threads)
        actors = [
            self._start("learner", lambda log: start_actor(LearnerWorker, options, log, settings.num_threads))
            for _ in range(settings.num_workers)
        ]
        bound = self._cluster.boot_timeout_s
        (master,) = gather([Call(actors[0], actors[0].handle.free_address.remote())], "starting", bound, BOOT_TIMEOUT)
        ranks = [Rank(index, len(actors), master) for index in range(len(actors))]
        calls = [Call(a, a.handle.join.remote(rank)) for a, rank in zip(actors, ranks, strict=True)]
        gather(calls, "joining the group of learners", bound, BOOT_TIMEOUT)
        return actors

    def _start(self, role: str, create: Callable[[Path], Any]) -> Actor:
        name = f"{role}-{next(self._numbers)}"
        log = self._logs / f"{name}.log"
        return Actor(name, create(log), log)

    # -------------------------------------------------------------------------------------------------------- resources

    def check(self, needs: tuple[Need, ...]) -> None:
        """Compare what a run needs with the whole cluster, waiting `cluster.wait_s` for more to join one that runs.

        Raises:
            UserError: it does not fit; says what is missing and what would fit.
        """
        plan = Plan(needs, capacity())
        waits = self._cluster.wait_s > 0 and self._cluster.address != "local"
        if not plan.fits and waits:
            self._listener.said(
                "cluster", f"{plan.what_is_missing()}; waiting up to {self._cluster.wait_s:g} s for them to join"
            )
            wait_until(lambda: Plan(needs, capacity()).fits, self._cluster.wait_s)
            plan = Plan(needs, capacity())
        refuse_unfit(plan, f" after waiting {self._cluster.wait_s:g} s" if waits else "")

    def _make_room(self, role: str) -> None:
        """End groups of the same role that are of another shape: what an earlier stage left and this one cannot use."""
        # A copy: the groups of other roles are started by threads beside this one.
        for key in [key for key in list(self._groups) if key[0] == role]:
            self._end(key)

    def _end(self, key: tuple[Any, ...]) -> None:
        actors = self._groups.pop(key)
        if key[0] == "rollout":  # An engine has processes of its own, which outlive the death of the one that has them.
            settle([actor.handle.close.remote() for actor in actors], CLOSE_S)
        for actor in actors:
            with suppress(ValueError):
                ray.kill(actor.handle)


def connect(cluster: Cluster) -> None:
    """Start a private Ray on this machine, or join the one at `cluster.address`.

    Raises:
        UserError: there is no Ray at that address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": "error", "namespace": NAMESPACE, "configure_logging": True}
    if cluster.address != "local":
        if cluster.address != "auto":
            _probe(cluster.address)
        try:
            ray.init(address=cluster.address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"cluster.address={cluster.address}: no Ray answers there: {error}") from error
        return
    # A private Ray guards itself with a token of its own, and leaves the user's token file alone.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray.init(address="local", num_cpus=cluster.num_cpus, include_dashboard=False, **quiet)


def _probe(address: str) -> None:
    """Raises UserError when nothing listens there: Ray itself would try for most of a minute, and print every try."""
    try:
        parts = urlsplit(f"//{address.removeprefix('ray://')}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise UserError(f"cluster.address={address}: expected local, auto or HOST:PORT")
    try:
        socket.create_connection((host, port), PROBE_S).close()
    except OSError as error:
        raise UserError(
            f"cluster.address={address}: nothing answers there: {error}; give the address that `ray start --head` "
            f"printed, or local"
        ) from error


def start_actor(worker: type, options: dict[str, Any], *arguments: Any) -> Any:
    """An actor around a plain class of `cluster.workers`; a dead one is never restarted behind our back."""
    return ray.remote(max_restarts=0, **options)(worker).remote(*arguments)


def capacity() -> Capacity:
    has = ray.cluster_resources()
    return Capacity(has.get("CPU", 0.0), has.get("GPU", 0.0))


def check_local(cluster: Cluster, needs: tuple[Need, ...]) -> None:
    """A private Ray is as large as this machine, known before it starts. Raises UserError when that is too small."""
    if cluster.address == "local":
        refuse_unfit(Plan(needs, local_capacity(cluster)), "")


def refuse_unfit(plan: Plan, waited: str) -> None:
    if not plan.fits:
        raise UserError(f"the cluster is too small{waited}: {plan.what_is_missing()}")


def local_capacity(cluster: Cluster) -> Capacity:
    """What a private Ray on this machine would have."""
    return Capacity(float(cluster.num_cpus or os.cpu_count() or 1), float(torch.cuda.device_count()))


def resources(num_cpus: float, num_gpus: float, num_threads: int) -> dict[str, Any]:
    """What an actor asks of Ray. Its threads are set before any library counts the machine's cores.

    A thread that waits spins for some microseconds and then gives its core away: roles share cores, where the library's
    default would hold the others up, and threads that sleep at once are slower than one alone.
    """
    threads = {name: str(num_threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    threads["GOMP_SPINCOUNT"] = "20000"
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return {"num_cpus": num_cpus, "num_gpus": num_gpus, "runtime_env": {"env_vars": threads | quiet}}


def named(spec: SamplerSpec, worker: str) -> SamplerSpec:
    return replace(spec, worker=worker)
