"""Admission: whether a run fits before it starts, and whether it may be scaled or do without a host while it runs."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import ray

from plumbob.cluster.calls import wait_until
from plumbob.cluster.nodes import hosts, this_machine
from plumbob.cluster.placement import Plan, plan
from plumbob.cluster.resources import (
    Expected,
    Host,
    ResourceNeed,
    WorkerRole,
    gib_in_words,
    hosts_of,
    on_hosts,
    parts_in_words,
    resources_of,
    settings_that_hold,
)
from plumbob.cluster.run_status import RunStatus
from plumbob.configs.settings.workers import ClusterSettings
from plumbob.core.activities import activities
from plumbob.core.errors import UserError
from plumbob.models.sizes.memory import GIB, MemoryEstimate

FIX = (
    "take a smaller model, policy.dtype=bfloat16, an adapter (policy.tuning.kind=lora) where all weights are trained, "
    "or more hosts"
)

BUSY_S = 30.0
"""What others hold is waited for so long at least: workers of a run that has just ended hold theirs for seconds."""


def check_local(
    cluster: ClusterSettings, needs: tuple[ResourceNeed, ...], expected: Expected, is_running: bool = False
) -> None:
    """A private Ray cluster is as large as this machine, known before it starts.

    Args:
        is_running: it has been started already, perhaps with workers that this run takes over: it knows what is free.

    Raises:
        UserError: this machine is too small, or others hold too much of it.
    """
    if cluster.address == "local":
        here = plan_here(cluster, needs, expected)
        if not is_running:
            _refuse_unfit(here, cluster, "")


def plan_here(cluster: ClusterSettings, needs: Sequence[ResourceNeed], expected: Expected) -> Plan:
    """What a private Ray cluster that starts now would have room for.

    Raises:
        UserError: weights and optimizer states are larger than this machine's memory.
    """
    impossible = what_cannot_be(needs, expected, this_machine(cluster, free=False))
    if impossible is not None:
        raise UserError(f"{impossible}: {FIX}")
    return plan(needs, this_machine(cluster), this_machine(cluster, free=False))


def plan_there(needs: Sequence[ResourceNeed]) -> Plan:
    """What the cluster that was joined has room for now."""
    return plan(needs, hosts(free=True), hosts(free=False))


def joined_notes(cluster: ClusterSettings, needs: Sequence[ResourceNeed], expected: Expected) -> tuple[str, ...]:
    """What is reported of the memory of a cluster that was joined. It ends nothing: only Ray's own figure is known.

    That is what `ray start --memory` was given, or most of what was free when Ray was started.
    """
    impossible = None if cluster.address == "local" else what_cannot_be(needs, expected, hosts(free=False))
    if impossible is None:
        return ()
    asked = " and ".join(settings_that_hold(needs, expected))
    placed = f", and {asked} places each where it has room" if asked else ""
    return (
        f"{impossible} by its Ray, which may be less than it is; if it is that, the run will be ended for want of "
        f"memory: {FIX}; if not, `ray start --memory=BYTES` says so{placed}",
    )


def fitting_plan(found: Callable[[], Plan], cluster: ClusterSettings, notify: Callable[[str], None]) -> Plan:
    """What is found, as soon as it fits; what a cluster lacks that can grow, or others hold of it, is waited for.

    Raises:
        UserError: it does not fit in time.
    """
    first = found()
    wait_s = max(cluster.wait_s, 0.0 if first.total is None else BUSY_S)
    waits = wait_s > 0 and cluster.address != "local"
    if waits and not first.fits:
        until = "for hosts to join" if first.total is None else "for others to end"
        notify(f"{first.what_is_missing()}; waiting up to {wait_s:g} s {until}")
        with activities.during(f"waiting {until}"):
            wait_until(lambda: found().fits, wait_s)
    fitting = found()
    _refuse_unfit(fitting, cluster, f" after waiting {wait_s:g} s" if waits else "")
    return fitting


def _refuse_unfit(found: Plan, cluster: ClusterSettings, waited: str) -> None:
    if found.fits:
        return
    where = "this machine" if cluster.address == "local" else "the cluster"
    if found.total is None:
        raise UserError(f"{where} is too small{waited}: {found.what_is_missing()}")
    if cluster.address == "local":  # A private one does not know what others run here.
        raise UserError(f"{where} is busy: {found.what_is_missing()}; the run fits once others have ended")
    running = ", ".join(sorted(ray.util.list_named_actors())) or "none"
    raise UserError(
        f"{where} is busy{waited}: {found.what_is_missing()}; runs of Plumbob on it: {running}; the run fits once "
        f"others have ended: cluster.wait_s=3600 waits up to an hour for that"
    )


def what_cannot_be(needs: Sequence[ResourceNeed], expected: Expected, hosts: Sequence[Host]) -> str | None:
    """The first stage whose weights and optimizer states are larger than the memory, as a sentence without its end.

    Those of one worker are larger than the memory of any host that it may be on, or those of all workers than that
    of all hosts. What is on GPUs is not looked at: the hosts do not say how much memory these have.

    Args:
        hosts: with all that they have, whoever uses it now.
    """
    return next((found for stage in expected if (found := _of_stage(stage, needs, expected[stage], hosts))), None)


def _of_stage(
    stage: str, needs: Sequence[ResourceNeed], roles: Mapping[WorkerRole, MemoryEstimate], hosts: Sequence[Host]
) -> str | None:
    looked_at = on_hosts(needs, roles)
    for need in looked_at:
        able = hosts_of([need], hosts)
        taken, estimate = roles[need.role].certain / GIB, roles[need.role]
        largest = max(able, key=lambda host: host.free.gib, default=None)
        if largest is not None and taken > largest.free.gib:
            return (
                f"stage {stage}: one worker of role {need.role} takes {gib_in_words(taken)} for its weights and their "
                f"optimizer alone, about {gib_in_words(estimate.total / GIB)} in all ({parts_in_words(estimate)}), and "
                f"{largest.address} has {gib_in_words(largest.free.gib)}"
            )
    together = sum(need.count * roles[need.role].certain for need in looked_at) / GIB
    able = hosts_of(looked_at, hosts)
    there = sum(host.free.gib for host in able)
    if not able or together <= there:
        return None
    workers = ", ".join(f"{need.setting}={need.count}" for need in looked_at)
    return (
        f"stage {stage}: the weights of all workers and their optimizers take {gib_in_words(together)} together "
        f"({workers}; fewer may fit), and the hosts that they may be on have {gib_in_words(there)}"
    )


def check_scale(status: RunStatus, num_workers: int, draining: Collection[str]) -> int:
    """How many the run has now.

    Args:
        status: of a run on the cluster that this process is part of.
        draining: ids of nodes that will be taken away.

    Raises:
        UserError: fewer than one, more than there is capacity for, what autoscaling would undo, or the run has no
            rollout workers.
    """
    if num_workers < 1:
        raise UserError(f"--rollout-workers {num_workers}: expected 1 or more; `plumbob stop` ends a run")
    need = status.rollout
    if need is None:
        raise UserError("this run has no rollout workers now: they are started by the stages that sample")
    bounds = status.autoscale
    if bounds is not None and not bounds.min_workers <= num_workers <= bounds.max_workers:
        is_low = num_workers < bounds.min_workers
        key, bound = ("min_workers", bounds.min_workers) if is_low else ("max_workers", bounds.max_workers)
        raise UserError(
            f"--rollout-workers {num_workers}: the run scales by itself within rollout.autoscale.{key}={bound}; "
            f"`plumbob stop` it and resume it with `plumbob resume RUN rollout.autoscale.{key}={num_workers}`"
        )
    more = num_workers - need.count
    if more > 0:
        staying = [host for host in hosts(free=True) if host.node_id not in draining]
        found = plan([replace(need, count=more)], staying)
        if not found.fits:
            raise UserError(
                f"--rollout-workers {num_workers}: there are {need.count} now, and for {more} more "
                f"{found.what_is_missing()} besides them"
            )
    return need.count


def check_drain(status: RunStatus, host: str, nodes: Collection[str], draining: Collection[str]) -> None:
    """Whether the run can continue without a host.

    Args:
        host: as people call it; `nodes`: its ids.
        draining: ids of nodes that will be taken away already.

    Raises:
        UserError: on the hosts that stay, the least that it needs would not fit any more.
    """
    minimum = status.minimum_needs
    staying = [other for other in hosts(free=False) if other.node_id not in draining]
    others = [other for other in staying if other.node_id not in nodes]
    if plan(minimum, staying).fits and not plan(minimum, others).fits:
        needed = ", ".join(f"{need.count} {need.role} of {resources_of(need)}" for need in minimum)
        raise UserError(
            f"{host}: on the hosts that stay there would be no room for the least that the run needs ({needed}); start "
            f"Ray on another first, or end the run with `plumbob stop`"
        )
