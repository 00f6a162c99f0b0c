"""A run that does not fit is refused before it starts."""

from collections.abc import Callable

from cluster.health import wait_until
from cluster.hosts import this_machine
from cluster.needs import Need
from cluster.placement import Plan, plan
from configs.errors import UserError
from configs.roles import Cluster


def check_local(cluster: Cluster, needs: tuple[Need, ...]) -> None:
    """A private Ray is as large as this machine, known before it starts. Raises UserError when that is too small."""
    if cluster.address == "local":
        _refuse_unfit(plan(needs, this_machine(cluster)), "")


def fitting_plan(found: Callable[[], Plan], cluster: Cluster, said: Callable[[str], None]) -> Plan:
    """What is found, as soon as it fits; of a cluster that can grow that is waited for. UserError when it does not."""
    waits = cluster.wait_s > 0 and cluster.address != "local"
    if waits and not found().fits:
        said(f"{found().what_is_missing()}; waiting up to {cluster.wait_s:g} s for them to join")
        wait_until(lambda: found().fits, cluster.wait_s)
    fitting = found()
    _refuse_unfit(fitting, f" after waiting {cluster.wait_s:g} s" if waits else "")
    return fitting


def _refuse_unfit(found: Plan, waited: str) -> None:
    if not found.fits:
        raise UserError(f"the cluster is too small{waited}: {found.what_is_missing()}")
