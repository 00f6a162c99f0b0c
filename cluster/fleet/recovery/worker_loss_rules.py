"""Loss rules: when a member of a pool is given up and replaced, one pure function for each reason."""

from collections.abc import Mapping
from functools import partial

from plumbob.cluster.calls import BOOT_TIMEOUT, CALL_TIMEOUT
from plumbob.cluster.fleet.member import Member, PoolSnapshot, WorkerLossReason, WorkerLossRule
from plumbob.configs.settings.workers import ClusterSettings


def worker_loss_rules(cluster: ClusterSettings) -> tuple[WorkerLossRule, ...]:
    """All that hold in a run, the first that holds first. A new one is a function below, and its setting in `cluster`.

    Besides these a member is lost that dies in a call, or fails at what another may do: that is known when the call
    ends, and needs no rule (`fleet.pool`).
    """
    timeouts = {BOOT_TIMEOUT: cluster.boot_timeout_s, CALL_TIMEOUT: cluster.call_timeout_s}
    return (host_is_gone, partial(call_is_overdue, timeouts))


def host_is_gone(member: Member, snapshot: PoolSnapshot) -> WorkerLossReason | None:
    """Ray takes its host for dead."""
    if member.node_id in snapshot.living_nodes:
        return None
    was = "" if member.task is None else f" while it was {member.task.work.doing}"
    return WorkerLossReason(f"{member.actor.name}: its host {member.reservation.host.address} is gone{was}")


def call_is_overdue(timeouts: Mapping[str, float], member: Member, snapshot: PoolSnapshot) -> WorkerLossReason | None:
    """It has been at one call for too long. One that has ended is never too late: between two batches nobody looks.

    Args:
        timeouts: key of a setting -> seconds.
    """
    task = member.task
    if task is None or task.result in snapshot.ended:
        return None
    bound_s = timeouts[task.timeout]
    if snapshot.time_s - task.began <= bound_s:
        return None
    return WorkerLossReason(f"{member.actor.name}: still {task.work.doing} after {bound_s:.0f} s ({task.timeout})")
