"""A connection to Ray and the worker groups on it, which later stages and runs use again where they fit."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal, Self

import ray

from cluster.connect import connect
from cluster.groups import LearnerGroup, SamplerGroup, ScorerGroup, gather_ranks
from cluster.health import BOOT_TIMEOUT, Actor, Call, settle, wait_until
from cluster.needs import Need, Role, learners, rollouts, scorers
from cluster.placement import Plan, plan
from cluster.pool import Member, Pool, Preparation, Surroundings
from cluster.restarts import LearnersLost, Restarts, WorkerLost
from cluster.seats import Seat, Seating, hosts, options, this_machine
from cluster.workers import LearnerWorker, RolloutWorker, ScorerWorker
from configs.errors import RunFailed, UserError
from configs.roles import Cluster, LearnerRanks, Rollout, Scorer, Workers
from configs.schema import LearnerRun
from rollout.sampler import SamplerSpec
from trainers.engine import Rank
from trainers.metrics import Listener

CLOSE_S = 5.0
"""How long a rollout worker has to end its engine; one that is busy is killed all the same."""

POLL_S = 0.5


@dataclass
class Staffed:
    """A pool with what it was made for, and the model that it has open."""

    pool: Pool
    need: Need
    num_threads: int
    model: Any = None


@dataclass(frozen=True)
class Ranks:
    """The learner processes, and what they were made for."""

    settings: tuple[Need, int]
    actors: tuple[Actor, ...]
    seats: tuple[Seat, ...]


class Session:
    """The workers of a run, or of several runs one after the other.

    Args:
        logs: folder of the workers' logs, on storage that every host can read.
    """

    def __init__(self, cluster: Cluster, logs: Path, listener: Listener) -> None:
        self._cluster, self._logs, self._listener = cluster, logs.resolve(), listener
        self._pools: dict[Role, Staffed] = {}
        self._ranks: Ranks | None = None
        self._numbers = count()
        self._seating = Seating()
        self._restarts = Restarts(cluster.max_restarts)

    def __enter__(self) -> Self:
        connect(self._cluster)
        return self

    def __exit__(self, *_: object) -> None:
        for role in list(self._pools):
            self._pools.pop(role).pool.close()
        self._end_learners()
        ray.shutdown()

    # ---------------------------------------------------------------------------------------------------------- groups

    def learners(self, run: LearnerRun) -> LearnerGroup:
        """The learners of a run, its model loaded; processes that an earlier stage left are used again."""
        actors = self._learner_actors(run.learner)
        calls = [Call(actor, actor.handle.build.remote(run)) for actor in actors]
        gather_ranks(calls, "loading the model", self._cluster.boot_timeout_s, BOOT_TIMEOUT)
        return LearnerGroup(actors, self._cluster.call_timeout_s, self.attend)

    def samplers(self, spec: SamplerSpec, rollout: Rollout) -> SamplerGroup:
        """Rollout workers with that model; `spec.worker` is replaced by each worker's own name."""
        pool = self._opened(
            rollouts(rollout),
            rollout,
            RolloutWorker,
            spec,
            Preparation(
                lambda actor: actor.handle.open.remote(replace(spec, worker=actor.name)), "starting its engine"
            ),
        )
        return SamplerGroup(pool, rollout.chunk_size)

    def scorers(self, scorer: Scorer, section: Literal["reward", "judge"] = "reward") -> ScorerGroup:
        """Scorers with that reward model."""
        opening = Preparation(lambda actor: actor.handle.open.remote(scorer), "loading the reward model")
        pool = self._opened(scorers(scorer, section), scorer, ScorerWorker, scorer, opening)
        return ScorerGroup(pool, scorer.batch_size * 4)

    def in_learner(self, settings: LearnerRanks, function: Callable[..., None], *arguments: Any) -> None:
        """Run a function in rank 0's process, such as one that makes a model: the driver loads no model package."""
        first = self._learner_actors(settings)[0]
        call = Call(first, first.handle.apply.remote(function, arguments))
        gather_ranks([call], f"running {function.__name__}", self._cluster.call_timeout_s)

    def replace_learners(self, lost: LearnersLost) -> None:
        """End what is left of a group that lost a rank; the next use starts another. RunFailed past the budget."""
        self._end_learners()
        self._restarts.spend(lost, self._listener)

    # ----------------------------------------------------------------------------------------------------------- pools

    def _opened(self, need: Need, workers: Workers, kind: type, model: Any, opening: Preparation) -> Pool:
        """The pool of that role with that model: one that is there is used again where its workers are of that size."""
        staffed = self._pools.get(need.role)
        same_size = staffed is not None and (replace(staffed.need, count=need.count), staffed.num_threads) == (
            need,
            workers.num_threads,
        )
        if staffed is not None and not same_size:
            self._pools.pop(need.role).pool.close()
        if staffed is None or not same_size:
            staffed = Staffed(self._new_pool(need, workers.num_threads, kind), need, workers.num_threads)
            self._pools[need.role] = staffed
        if need.count != staffed.need.count:
            staffed.need, staffed.pool.size = need, need.count
        if model != staffed.model:
            staffed.pool.open(opening)
            staffed.model = model
        return staffed.pool

    def _new_pool(self, need: Need, num_threads: int, kind: type) -> Pool:
        seated: Counter[str] = Counter()

        def hire() -> Member | None:
            seat = self._seating.take_one(need, seated)
            if seat is None:
                return None
            seated[seat.host.node_id] += 1
            return Member(self._start(need, seat, kind, num_threads), seat)

        def dismiss(member: Member, is_lost: bool) -> None:
            seated[member.seat.host.node_id] -= 1
            if not is_lost:  # An engine has processes of its own, which outlive the death of the one that has them.
                settle([member.actor.handle.close.remote()], CLOSE_S)
            self._seating.give_up(member.actor.handle, member.seat)

        def said(message: str) -> None:
            self._listener.said("cluster", message)

        around = Surroundings(hire, dismiss, self._lost, self.attend, said)
        return Pool(need.role, need.count, around, self._cluster.boot_timeout_s, self._cluster.call_timeout_s)

    def _lost(self, lost: WorkerLost) -> None:
        self._restarts.spend(lost, self._listener)

    # -------------------------------------------------------------------------------------------------------- learners

    def _learner_actors(self, settings: LearnerRanks) -> Sequence[Actor]:
        wanted = (learners(settings), settings.num_threads)
        if self._ranks is not None and self._ranks.settings != wanted:
            self._end_learners()
        if self._ranks is None:
            self._start_learners(*wanted)
        assert self._ranks is not None
        return self._ranks.actors

    def _start_learners(self, need: Need, num_threads: int) -> None:
        seats = self._seats_for(need)
        actors = tuple(self._start(need, seat, LearnerWorker, num_threads) for seat in seats)
        self._ranks = Ranks((need, num_threads), actors, tuple(seats))
        bound = self._cluster.boot_timeout_s
        first = Call(actors[0], actors[0].handle.free_address.remote())
        (master,) = gather_ranks([first], "starting", bound, BOOT_TIMEOUT)
        ranks = [Rank(index, len(actors), master) for index in range(len(actors))]
        calls = [Call(a, a.handle.join.remote(rank)) for a, rank in zip(actors, ranks, strict=True)]
        gather_ranks(calls, "joining the group of learners", bound, BOOT_TIMEOUT)

    def _seats_for(self, need: Need) -> list[Seat]:
        """Of all ranks. What others hold, or a lost group has not given back yet, is waited for."""
        seats, bound = self._seating.take_all(need), self._cluster.boot_timeout_s
        if not seats:
            self._listener.said("cluster", f"waiting up to {bound:g} s for room for {need.count} learner workers")
        deadline = time.monotonic() + bound
        while not seats and time.monotonic() < deadline:
            time.sleep(POLL_S)
            seats = self._seating.take_all(need)
        if not seats:
            missing = plan([need], hosts(free=True)).what_is_missing()
            raise RunFailed(f"no room for the learners after {bound:g} s ({BOOT_TIMEOUT}): {missing}")
        return seats

    def _end_learners(self) -> None:
        if self._ranks is not None:
            for actor, seat in zip(self._ranks.actors, self._ranks.seats, strict=True):
                self._seating.give_up(actor.handle, seat)
            self._ranks = None

    # ------------------------------------------------------------------------------------------------------- resources

    def _start(self, need: Need, seat: Seat, kind: type, num_threads: int) -> Actor:
        name = f"{need.role}-{next(self._numbers)}"
        log = self._logs / f"{name}.log"
        handle = ray.remote(**options(need, seat, num_threads))(kind).remote(log, num_threads)
        return Actor(name, handle, log)

    def attend(self) -> None:
        """Called now and then while workers are waited for."""

    def check(self, needs: tuple[Need, ...]) -> None:
        """Compare what a run needs with the whole cluster, waiting `cluster.wait_s` for more to join one that runs.

        Raises:
            UserError: it does not fit; says what is missing and what would fit.
        """
        found = plan(needs, hosts(free=True))
        waits = self._cluster.wait_s > 0 and self._cluster.address != "local"
        if not found.fits and waits:
            self._listener.said(
                "cluster", f"{found.what_is_missing()}; waiting up to {self._cluster.wait_s:g} s for them to join"
            )
            wait_until(lambda: plan(needs, hosts(free=True)).fits, self._cluster.wait_s)
            found = plan(needs, hosts(free=True))
        refuse_unfit(found, f" after waiting {self._cluster.wait_s:g} s" if waits else "")


def check_local(cluster: Cluster, needs: tuple[Need, ...]) -> None:
    """A private Ray is as large as this machine, known before it starts. Raises UserError when that is too small."""
    if cluster.address == "local":
        refuse_unfit(plan(needs, this_machine(cluster)), "")


def refuse_unfit(found: Plan, waited: str) -> None:
    if not found.fits:
        raise UserError(f"the cluster is too small{waited}: {found.what_is_missing()}")
