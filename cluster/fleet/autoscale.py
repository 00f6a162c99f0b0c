"""How many rollout workers a run should have, from who waited for whom."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from plumbob.cluster.run_status import AutoscaleBounds, WorkerStatus
from plumbob.configs.settings.workers import AutoscaleSettings
from plumbob.trainers.metrics.step_record import StepRecord
from plumbob.trainers.online.step_metrics import sampler_idle_s

WAITING = ("sample", "score")
"""Phases in which the learner waits for responses and their scores."""


class IdleShares(NamedTuple):
    """Shares of one step's time, 0 to 1."""

    learner: float
    sampler: float


def idle_of(record: StepRecord) -> IdleShares | None:
    """Who waited in an online step; None for a step of another stage."""
    total = sum(record.seconds.values())
    idle_s = sampler_idle_s(record.metrics)
    if idle_s is None or total <= 0:
        return None
    learner = sum(record.seconds.get(phase, 0.0) for phase in WAITING)
    return IdleShares(min(learner / total, 1.0), min(idle_s / total, 1.0))


def desired_workers(target_size: int, steps: Sequence[IdleShares], settings: AutoscaleSettings) -> int:
    """One more where the learner waited longer than the samplers, by `margin` of the time, `patience` steps in a row.

    One fewer where it was the other way round. Between the two both wait as little as they can: by turns each waits
    while the other works, and a worker more helps as long as sampling takes the larger part.

    Args:
        target_size: workers wanted now.
        steps: those since the number last changed, the newest last.
    """
    low, high = settings.min_workers, settings.max_workers
    recent = steps[-settings.patience :]
    if len(recent) == settings.patience:
        leads = [idle.learner - idle.sampler for idle in recent]
        if min(leads) > settings.margin:
            target_size += 1
        elif max(leads) < -settings.margin:
            target_size -= 1
    return max(low, min(target_size, high))


class Autoscaler:
    """Remembers who waited since the number of rollout workers last changed.

    A step in which the learner waited counts when all workers that are wanted have answered: more of them will not come
    sooner for being wanted sooner.
    """

    def __init__(self, settings: AutoscaleSettings) -> None:
        self.bounds = AutoscaleBounds(settings.min_workers, settings.max_workers)
        self._settings = settings
        self._steps: deque[IdleShares] = deque(maxlen=settings.patience)

    def workers_after_step(self, record: StepRecord, target_size: int, workers: Sequence[WorkerStatus]) -> int:
        """How many workers there should be after that step.

        Args:
            workers: those that there are, as `Pool.status` gives them.
        """
        idle = idle_of(record)
        if idle is None:
            return target_size
        if idle.learner > idle.sampler and sum(bool(row.num_done) for row in workers) < target_size:
            self._steps.clear()
            return target_size
        self._steps.append(idle)
        wanted = desired_workers(target_size, tuple(self._steps), self._settings)
        if wanted != target_size:
            self._steps.clear()
        return wanted
