"""Eviction: preempts the fewest pool workers that make a group fit, never a pool's last."""

from collections.abc import Callable, Sequence

from plumbob.cluster.fleet.member import Member
from plumbob.cluster.fleet.membership import Membership
from plumbob.cluster.fleet.reservations import Reservations
from plumbob.cluster.placement import evicted
from plumbob.cluster.resources import ResourceNeed


def evict_for(
    need: ResourceNeed, pools: Sequence[Membership], reservations: Reservations, notify: Callable[[str], None]
) -> None:
    """Drain the members of these pools without which the group would fit; what they free is held for it for a while.

    Nobody goes where that would not do. The newest of a pool go first; it runs with fewer than it wants until there is
    capacity again.
    """
    draining = [member.reservation for pool in pools for member in pool.members if member.is_draining]
    spare = [(pool, member) for pool in pools for member in _spare(pool)]
    held = [(member.node_id, member.reservation.size) for _, member in spare]
    found = evicted(need, reservations.free_after_release(draining), held)
    if found is None:
        return
    reservations.hold_for(need.role)
    for pool in pools:
        chosen = [spare[index][1] for index in found if spare[index][0] is pool]
        for member in chosen:
            notify(f"{member.actor.name} is evicted for the {need.role} workers")
        pool.drain(chosen)


def _spare(pool: Membership) -> list[Member]:
    """Whom it could do without, the newest first: all but one that stays."""
    return [member for member in pool.members if not member.is_draining][:0:-1]
