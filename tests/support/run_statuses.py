"""Statuses of runs that are nowhere yet, for tests to change."""

from dataclasses import replace

from plumbob.cluster.resources import ResourceNeed
from plumbob.cluster.run_status import RunStatus
from plumbob.trainers.metrics.step_record import StepRecord

NO_STATUS = RunStatus(
    time=1e9,
    stage=None,
    step=None,
    last_message="",
    workers={},
    rollout=None,
    minimum_needs=(),
    autoscale=None,
    workers_lost=0,
    responses=None,
)
"""Of a run that has just begun."""

TWO_ROLLOUT_WORKERS = replace(
    NO_STATUS, rollout=ResourceNeed("rollout", "rollout.num_workers", 2, 0.25, 0.0, 0.0, spread=True)
)


def at_step(status: RunStatus, step: int) -> RunStatus:
    return replace(status, stage="ppo", step=StepRecord("ppo", step, 9, {"kl": 0.5}, {"sample": 2.0}))
