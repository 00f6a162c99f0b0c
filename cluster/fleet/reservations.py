"""Places on hosts that Ray keeps for a worker."""

import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from plumbob.cluster.nodes import GIB, hosts, living_nodes
from plumbob.cluster.placement import Plan, choose, plan
from plumbob.cluster.resources import Amount, Host, Need, WorkerRole, amount

NODE_LABEL = "ray.io/node-id"
"""Ray puts this label on every node by itself."""


PLACED_S = 10.0
"""How long Ray has to reserve what it reported as free for a group; after that somebody else has it."""

ONE_PLACED_S = 2.0
"""The same for one worker of a pool: the others wait for their next chunk meanwhile."""

AVOIDED_S = 20.0
"""How long a host is left alone on which Ray did not reserve in time: it may be cut off, and not known to be."""


CLAIM_S = 10.0
"""How long room is kept for those for whom it is made; they ask again sooner than that."""


@dataclass(frozen=True)
class Reservation:
    """A bundle of a placement group on a host that the plan chose."""

    role: WorkerRole
    host: Host
    size: Amount
    group: PlacementGroup
    bundle: int


class Reservations:
    """The seats that a session holds. Several threads may ask for some at once.

    Roles are seated in any order, one worker at a time. So that a small worker does not take the only host where a
    large one has room, they go where the plan that was made for all of them has them, as long as there is room.

    Attributes:
        leaving: ids of nodes that will be taken away; `take_one` takes no seat there, `take_all` only if it must.
    """

    def __init__(self) -> None:
        self.leaving: frozenset[str] = frozenset()
        self._held: list[Reservation] = []
        self._planned: dict[WorkerRole, list[str]] = {}
        self._avoided: dict[str, float] = {}
        self._claims: dict[WorkerRole, float] = {}
        self._turn = threading.Lock()

    def follow(self, found: Plan) -> None:
        """Seat workers as that plan does, which fits."""
        assert found.placed is not None
        with self._turn:
            placed = zip(found.needs, found.placed, strict=True)
            self._planned = {need.role: [host.node_id for host in seats] for need, seats in placed}

    def take_one(self, need: Need, seated: Mapping[str, int], unfit: Collection[str]) -> Reservation | None:
        """A seat for one worker of a group; None when no host has room.

        Args:
            seated: node id -> workers of the group that are there already.
            unfit: ids of nodes to keep away from.
        """
        with self._turn:
            claims = {role for role, until in self._claims.items() if until > time.monotonic()}
            if claims and need.role not in claims:
                return None
            out = self.leaving | set(unfit) | self._avoided_now()
            able = [host for host in self._free() if host.node_id not in out]
            host = next(iter(self._as_planned(need, able, 1)), None) or choose(need, able, seated)
            if host is None:
                return None
            seats = self._reserve(need, [host])
        return next(iter(self._once_placed(seats, ONE_PLACED_S)), None)

    def take_all(self, need: Need, anywhere: bool = False) -> list[Reservation]:
        """Seats for workers that come and go together; none when they do not all fit.

        Args:
            anywhere: if they fit nowhere else, on hosts too that will be taken away or did not answer.
        """
        with self._turn:
            free, chosen = self._free(), list[Host]()
            doubtful = self.leaving | self._avoided_now()
            for out in (doubtful, self.leaving, frozenset[str]()) if anywhere else (doubtful,):
                chosen = chosen or self._for_all(need, [host for host in free if host.node_id not in out])
            seats = self._reserve(need, chosen) if chosen else []
        return self._once_placed(seats, PLACED_S)

    def may_stay(self, seats: Sequence[Reservation]) -> bool:
        """Whether others can start on these seats at once: all their hosts are there, stay, and answer."""
        nodes = {seat.host.node_id: seat.host.address for seat in seats}
        if self.leaving.intersection(nodes) or not living_nodes().issuperset(nodes):
            return False
        # Ray gives every node this resource; nobody asks for much of it.
        asked = [{f"node:{address}": 0.001} for address in nodes.values()]
        group = placement_group(asked, bundle_label_selector=[{NODE_LABEL: node_id} for node_id in nodes])
        try:
            return bool(group.wait(ONE_PLACED_S))
        finally:
            remove_placement_group(group)

    def avoid(self, seats: Sequence[Reservation], for_s: float) -> None:
        """Leave their hosts alone so long."""
        with self._turn:
            self._avoided |= {seat.host.node_id: time.monotonic() + for_s for seat in seats}

    def claim(self, role: WorkerRole) -> None:
        """Room is being made for that role: for a while no worker of another one is given any that has no claim too."""
        with self._turn:
            self._claims[role] = time.monotonic() + CLAIM_S

    def release(self, seat: Reservation) -> None:
        """Of an actor that has been ended."""
        remove_placement_group(seat.group)
        with self._turn:
            self._held.remove(seat)

    def give_up(self, handle: Any, seat: Reservation) -> None:
        """End an actor and free its seat."""
        end_actor(handle)
        self.release(seat)

    def _for_all(self, need: Need, free: Sequence[Host]) -> list[Host]:
        planned = self._as_planned(need, free, need.count)
        return planned if len(planned) == need.count else list((plan([need], free).placed or ((),))[0])

    def _avoided_now(self) -> set[str]:
        return {node_id for node_id, until in self._avoided.items() if until > time.monotonic()}

    def _as_planned(self, need: Need, free: Sequence[Host], count: int) -> list[Host]:
        """Hosts for up to `count` workers where the plan has some of that role, nobody sits and there is room."""
        left = {host.node_id: host for host in free}
        taken = Counter(seat.host.node_id for seat in self._held if seat.role == need.role)
        found: list[Host] = []
        for node_id in self._planned.get(need.role, []):
            host = left.get(node_id)
            if taken[node_id]:
                taken[node_id] -= 1
            elif host is not None and host.free.holds(amount(need)) and len(found) < count:
                left[node_id] = replace(host, free=host.free.plus(amount(need), -1.0))
                found.append(host)
        return found

    def open_to_us(self) -> tuple[Host, ...]:
        """What is free, and what we hold."""
        with self._turn:
            return tuple(_with(self._free(), self._held))

    def room(self, going: Sequence[Reservation]) -> tuple[Host, ...]:
        """What is free on hosts that stay and answer, and these seats there."""
        with self._turn:
            out = self.leaving | self._avoided_now()
            return tuple(_with([host for host in self._free() if host.node_id not in out], going))

    def _free(self) -> list[Host]:
        """What Ray's report, which is a moment old, and our own seats leave."""
        totals = {host.node_id: host.free for host in hosts(free=False)}
        for seat in self._held:
            if seat.host.node_id in totals:
                totals[seat.host.node_id] = totals[seat.host.node_id].plus(seat.size, -1.0)
        return [
            replace(host, free=Amount(*map(min, zip(totals[host.node_id], host.free, strict=True))))
            for host in hosts(free=True)
            if host.node_id in totals
        ]

    def _reserve(self, need: Need, on: Sequence[Host]) -> list[Reservation]:
        """Asks Ray for these seats, and holds them, so that nobody else of ours takes the same."""
        bundle = {"CPU": need.num_cpus, "GPU": need.num_gpus, "memory": int(need.memory_gib * GIB)}
        asked = {name: size for name, size in bundle.items() if size}
        labels = [{NODE_LABEL: host.node_id} for host in on]
        group = placement_group([asked for _ in on], strategy="PACK", bundle_label_selector=labels)
        seats = [Reservation(need.role, host, amount(need), group, place) for place, host in enumerate(on)]
        self._held += seats
        self._claims.pop(need.role, None)
        return seats

    def _once_placed(self, seats: list[Reservation], bound_s: float) -> list[Reservation]:
        """The seats when Ray has reserved them; none when it has not within the bound. Others may ask meanwhile.

        Of several hosts nobody knows which one did not answer: all are avoided for a while.
        """
        if not seats or seats[0].group.wait(bound_s):
            return seats
        remove_placement_group(seats[0].group)
        with self._turn:
            self._held = [seat for seat in self._held if seat not in seats]
        self.avoid(seats, AVOIDED_S)
        return []


def end_actor(handle: Any) -> None:
    """Kill it; one that is dead already is none the worse."""
    with suppress(ValueError):
        ray.kill(handle)


def why_no_room(need: Need) -> str:
    """Why nobody got a seat, as far as Ray's report says."""
    found = plan([need], hosts(free=True))
    return "Ray did not give what it reports, or it is on hosts left alone" if found.fits else found.shortage()


def options(need: Need, seat: Reservation, num_threads: int) -> dict[str, Any]:
    """What an actor on that seat asks of Ray. Its threads are set before any library counts the machine's cores.

    A thread that waits spins for some microseconds and then gives its core away: roles share cores, where the library's
    default would hold the others up, and threads that sleep at once are slower than one alone.
    """
    threads = {name: str(num_threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    threads["GOMP_SPINCOUNT"] = "20000"
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return {
        "num_cpus": need.num_cpus,
        "num_gpus": need.num_gpus,
        "memory": int(need.memory_gib * GIB) or None,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(seat.group, seat.bundle),
        "runtime_env": {"env_vars": threads | quiet},
        # A dead one is never restarted behind our back.
        "max_restarts": 0,
    }


def _with(free: Sequence[Host], seats: Sequence[Reservation]) -> list[Host]:
    """These hosts, with what the seats hold there."""
    left = {host.node_id: host for host in free}
    for seat in seats:
        host = left.get(seat.host.node_id)
        if host is not None:
            left[host.node_id] = replace(host, free=host.free.plus(seat.size))
    return list(left.values())
