"""Whether a run may have as many rollout workers as somebody wants, and may do without a host."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from cluster.hosts import hosts
from cluster.needs import Need
from cluster.placement import amount, plan
from configs.errors import UserError


def check_scale(status: Mapping[str, Any], num_workers: int, leaving: Collection[str]) -> int:
    """How many the run has now.

    Args:
        status: of the run, on the cluster that this process is part of.
        leaving: ids of nodes that will be taken away.

    Raises:
        UserError: fewer than one, more than there is room for, what autoscaling would undo, or the run has no rollout
            workers.
    """
    if num_workers < 1:
        raise UserError(f"--rollout-workers {num_workers}: expected 1 or more; `plumbob stop` ends a run")
    rollout = status.get("rollout")
    if rollout is None:
        raise UserError("this run has no rollout workers now: they are started by the stages that sample")
    bounds = status.get("autoscale")
    if bounds is not None and not bounds["min_workers"] <= num_workers <= bounds["max_workers"]:
        key = "min_workers" if num_workers < bounds["min_workers"] else "max_workers"
        raise UserError(
            f"--rollout-workers {num_workers}: the run scales by itself within rollout.autoscale.{key}={bounds[key]}; "
            f"`plumbob stop` it and go on with `plumbob resume RUN rollout.autoscale.{key}={num_workers}`"
        )
    need = Need(**rollout)
    more = num_workers - need.count
    if more > 0:
        staying = [host for host in hosts(free=True) if host.node_id not in leaving]
        found = plan([replace(need, count=more)], staying)
        if not found.fits:
            raise UserError(
                f"--rollout-workers {num_workers}: there are {need.count} now, and for {more} more "
                f"{found.what_is_missing()} besides them"
            )
    return need.count


def check_leave(status: Mapping[str, Any], host: str, nodes: Collection[str], leaving: Collection[str]) -> None:
    """Whether the run can go on without a host.

    Args:
        host: as people call it; `nodes`: its ids.
        leaving: ids of nodes that will be taken away already.

    Raises:
        UserError: on the hosts that stay, the least that it needs would not fit any more.
    """
    least = [Need(**one) for one in status.get("least", [])]
    staying = [other for other in hosts(free=False) if other.node_id not in leaving]
    others = [other for other in staying if other.node_id not in nodes]
    if plan(least, staying).fits and not plan(least, others).fits:
        needed = ", ".join(f"{need.count} {need.role} of {amount(need)}" for need in least)
        raise UserError(
            f"{host}: on the hosts that stay there would be no room for the least that the run needs ({needed}); start "
            f"Ray on another first, or end the run with `plumbob stop`"
        )
