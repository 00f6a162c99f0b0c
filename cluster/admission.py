"""Admission: whether a run fits before it starts, and whether it may be scaled or do without a host while it runs."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import ray

from plumbob.cluster.calls import wait_until
from plumbob.cluster.nodes import hosts, this_machine
from plumbob.cluster.placement import Plan, plan
from plumbob.cluster.resources import Expected, Host, ResourceNeed, gib_in_words, parts_in_words, resources_of
from plumbob.cluster.run_status import RunStatus
from plumbob.configs.settings.workers import ClusterSettings
from plumbob.core.activities import activities
from plumbob.core.errors import UserError
from plumbob.models.sizes.memory import GIB

FIX = (
    "take a smaller model, policy.dtype=bfloat16, an adapter (policy.tuning.kind=lora) where all weights are trained, "
    "or more hosts"
)

BUSY_S = 30.0
"""What others hold is waited for so long at least: workers of a run that has just ended hold theirs for seconds."""


def check_local(cluster: ClusterSettings, needs: tuple[ResourceNeed, ...], expected: Expected) -> None:
    """A private Ray is as large as this machine, known before it starts. Raises UserError when that is too small."""
    if cluster.address == "local":
        check_memory(needs, expected, this_machine(cluster, free=False))
        _refuse_unfit(plan(needs, this_machine(cluster)), "")


def check_joined(cluster: ClusterSettings, needs: tuple[ResourceNeed, ...], expected: Expected) -> None:
    """Of a cluster that was joined, what no waiting mends. Raises UserError, as `check_memory`."""
    if cluster.address != "local":
        check_memory(needs, expected, hosts(free=False))


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
    _refuse_unfit(fitting, f" after waiting {wait_s:g} s" if waits else "")
    return fitting


def _refuse_unfit(found: Plan, waited: str) -> None:
    if found.fits:
        return
    if found.total is None:
        raise UserError(f"the cluster is too small{waited}: {found.what_is_missing()}")
    running = ", ".join(sorted(ray.util.list_named_actors())) or "none"
    raise UserError(
        f"the cluster is busy{waited}: {found.what_is_missing()}; runs of Plumbob on it: {running}; the run fits once "
        f"others have ended: cluster.wait_s=3600 waits up to an hour for that"
    )


def check_memory(needs: Sequence[ResourceNeed], expected: Expected, hosts: Sequence[Host]) -> None:
    """Look for what cannot be: weights and optimizer states that are larger than the memory.

    What is on GPUs is not looked at: the hosts do not say how much memory these have.

    Args:
        hosts: with all that they have, whoever uses it now.

    Raises:
        UserError: those of one worker are larger than any host's memory, or those of all than that of all hosts.
    """
    on_hosts = [need for need in needs if not need.num_gpus and need.role in expected]
    if not on_hosts or not hosts:
        return
    largest = max(hosts, key=lambda host: host.free.gib)
    for need in on_hosts:
        estimate = expected[need.role]
        taken = estimate.certain / GIB
        if taken > largest.free.gib:
            raise UserError(
                f"one worker of role {need.role} takes {gib_in_words(taken)} for its weights and their optimizer "
                f"alone, about {gib_in_words(estimate.total / GIB)} in all ({parts_in_words(estimate)}), and "
                f"{largest.address} has {gib_in_words(largest.free.gib)}: {FIX}"
            )
    together = sum(need.count * expected[need.role].certain for need in on_hosts) / GIB
    there = sum(host.free.gib for host in hosts)
    if together > there:
        workers = ", ".join(f"{need.setting}={need.count}" for need in on_hosts)
        raise UserError(
            f"the weights of all workers and their optimizers take {gib_in_words(together)} together ({workers}), and "
            f"the hosts have {gib_in_words(there)}: {FIX}, or fewer workers"
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
