"""A run that does not fit is refused before it starts."""

from cluster.needs import Need
from cluster.placement import Plan, plan
from cluster.seats import this_machine
from configs.errors import UserError
from configs.roles import Cluster


def check_local(cluster: Cluster, needs: tuple[Need, ...]) -> None:
    """A private Ray is as large as this machine, known before it starts. Raises UserError when that is too small."""
    if cluster.address == "local":
        refuse_unfit(plan(needs, this_machine(cluster)), "")


def refuse_unfit(found: Plan, waited: str) -> None:
    if not found.fits:
        raise UserError(f"the cluster is too small{waited}: {found.what_is_missing()}")
