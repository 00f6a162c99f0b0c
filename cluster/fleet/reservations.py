"""Placement-group reservations, one for each worker: what Ray keeps on a host for it, from before it starts."""

import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from plumbob.cluster.nodes import GIB, hosts, living_nodes
from plumbob.cluster.placement import Plan, choose, plan
from plumbob.cluster.resources import Host, ResourceAmount, ResourceNeed, WorkerRole, resources_of

NODE_LABEL = "ray.io/node-id"
"""Ray puts this label on every node by itself."""

RESERVED_S = 10.0
"""How long Ray has to reserve what it reported as free for a group; after that somebody else has it."""

ONE_RESERVED_S = 2.0
"""The same for one worker of a pool: the others wait for their next chunk meanwhile."""

AVOIDED_S = 20.0
"""How long a host is left alone on which Ray did not reserve in time: it may be cut off, and not known to be."""

HOLD_S = 10.0
"""How long capacity is held for those for whom others were evicted; they ask again sooner than that."""


REPEATED_S = 30.0
"""How often Ray's autoscaler is told again what is short: it knows one request, which another run may have replaced."""


@dataclass(frozen=True)
class Reservation:
    """A bundle of a placement group on a host that the plan chose."""

    role: WorkerRole
    host: Host
    size: ResourceAmount
    group: PlacementGroup
    bundle: int


class Reservations:
    """Those that a session has. Several threads may ask for some at once.

    Roles come in any order, one worker at a time. So that a small worker does not take the only host where a large one
    fits, they go where the plan that was made for all of them has them, as long as they fit there.

    Attributes:
        draining: ids of nodes that will be taken away; `reserve_one` takes none of them, `reserve_all` only if it must.
    """

    def __init__(self) -> None:
        self.draining: frozenset[str] = frozenset()
        self._reserved: list[Reservation] = []
        self._planned: dict[WorkerRole, list[str]] = {}
        self._avoided: dict[str, float] = {}
        self._holds: dict[WorkerRole, float] = {}
        self._short: dict[WorkerRole, list[ResourceAmount]] = {}
        self._requested: list[dict[str, float]] = []
        self._repeat_at = 0.0
        self._lock = threading.Lock()

    def use_plan(self, found: Plan) -> None:
        """Place workers as that plan does, which fits."""
        assert found.placed is not None
        with self._lock:
            placed = zip(found.needs, found.placed, strict=True)
            self._planned = {need.role: [host.node_id for host in chosen] for need, chosen in placed}

    def reserve_one(self, need: ResourceNeed, placed: Mapping[str, int], unfit: Collection[str]) -> Reservation | None:
        """For one worker of a group; None when no host has the capacity.

        Args:
            placed: node id -> workers of the group that are there already.
            unfit: ids of nodes to keep away from.
        """
        with self._lock:
            held_for = {role for role, until in self._holds.items() if until > time.monotonic()}
            if held_for and need.role not in held_for:
                return None
            out = self.draining | set(unfit) | self._avoided_now()
            able = [host for host in self._free() if host.node_id not in out]
            host = next(iter(self._as_planned(need, able, 1)), None) or choose(need, able, placed)
            if host is None:
                return None
            asked = self._ask(need, [host])
        return next(iter(self._wait_granted(asked, ONE_RESERVED_S)), None)

    def reserve_all(self, need: ResourceNeed, anywhere: bool = False) -> list[Reservation]:
        """For workers that come and go together; none when they do not all fit.

        Args:
            anywhere: if they fit nowhere else, on hosts too that are draining or did not answer.
        """
        with self._lock:
            free, chosen = self._free(), list[Host]()
            doubtful = self.draining | self._avoided_now()
            for out in (doubtful, self.draining, frozenset[str]()) if anywhere else (doubtful,):
                chosen = chosen or self._for_all(need, [host for host in free if host.node_id not in out])
            asked = self._ask(need, chosen) if chosen else []
        return self._wait_granted(asked, RESERVED_S)

    def are_usable(self, reservations: Sequence[Reservation]) -> bool:
        """Whether others can start on these at once: all their hosts are there, stay, and answer."""
        nodes = {reservation.host.node_id: reservation.host.address for reservation in reservations}
        if self.draining.intersection(nodes) or not living_nodes().issuperset(nodes):
            return False
        # Ray gives every node this resource; nobody asks for much of it.
        asked = [{f"node:{address}": 0.001} for address in nodes.values()]
        group = placement_group(asked, bundle_label_selector=[{NODE_LABEL: node_id} for node_id in nodes])
        try:
            return bool(group.wait(ONE_RESERVED_S))
        finally:
            remove_placement_group(group)

    def avoid(self, reservations: Sequence[Reservation], duration_s: float) -> None:
        """Leave their hosts alone so long."""
        with self._lock:
            self._avoided |= {each.host.node_id: time.monotonic() + duration_s for each in reservations}

    def hold_for(self, role: WorkerRole) -> None:
        """Others are evicted for that role: for a while `reserve_one` serves only roles for which this was called."""
        with self._lock:
            self._holds[role] = time.monotonic() + HOLD_S

    def request_hosts(self, *needs: ResourceNeed) -> None:
        """Tell Ray's autoscaler, if there is one, of groups for which no host has capacity.

        It is told the sizes of all workers of such groups, and of those that others have, and compares them with whole
        hosts; what it was told before, by whatever run, counts no more: whoever waits asks again and again. A placement
        group that waited instead would be seen too, and would take what learners give back for a moment.

        Args:
            needs: `count` is how many there shall be; 0 where all have capacity.
        """
        with self._lock:
            self._short |= {need.role: [resources_of(need)] * need.count for need in needs}
            short = {role: sizes for role, sizes in self._short.items() if sizes}
            held = [each.size for each in self._reserved if each.role not in short]
            requested = sorted(map(_bundle, [*held, *chain(*short.values())]), key=str) if short else []
            if requested != self._requested or (requested and time.monotonic() > self._repeat_at):
                request_resources(bundles=requested)
                self._requested, self._repeat_at = requested, time.monotonic() + REPEATED_S

    def release(self, reservation: Reservation) -> None:
        """Of an actor that has been ended."""
        remove_placement_group(reservation.group)
        with self._lock:
            self._reserved.remove(reservation)

    def _for_all(self, need: ResourceNeed, free: Sequence[Host]) -> list[Host]:
        planned = self._as_planned(need, free, need.count)
        return planned if len(planned) == need.count else list((plan([need], free).placed or ((),))[0])

    def _avoided_now(self) -> set[str]:
        return {node_id for node_id, until in self._avoided.items() if until > time.monotonic()}

    def _as_planned(self, need: ResourceNeed, free: Sequence[Host], count: int) -> list[Host]:
        """Hosts for up to `count` workers where the plan has some of that role, none is yet and they fit."""
        left = {host.node_id: host for host in free}
        taken = Counter(each.host.node_id for each in self._reserved if each.role == need.role)
        found: list[Host] = []
        for node_id in self._planned.get(need.role, []):
            host = left.get(node_id)
            if taken[node_id]:
                taken[node_id] -= 1
            elif host is not None and host.free.holds(resources_of(need)) and len(found) < count:
                left[node_id] = replace(host, free=host.free.plus(resources_of(need), -1.0))
                found.append(host)
        return found

    def free_plus_reserved(self) -> tuple[Host, ...]:
        """What is free, and what we have reserved."""
        with self._lock:
            return tuple(_with(self._free(), self._reserved))

    def free_after_release(self, released: Sequence[Reservation]) -> tuple[Host, ...]:
        """What is free on hosts that stay and answer once these have been released."""
        with self._lock:
            out = self.draining | self._avoided_now()
            return tuple(_with([host for host in self._free() if host.node_id not in out], released))

    def _free(self) -> list[Host]:
        """What Ray's report, which is a moment old, and our own reservations leave."""
        totals = {host.node_id: host.free for host in hosts(free=False)}
        for each in self._reserved:
            if each.host.node_id in totals:
                totals[each.host.node_id] = totals[each.host.node_id].plus(each.size, -1.0)
        return [
            replace(host, free=ResourceAmount(*map(min, zip(totals[host.node_id], host.free, strict=True))))
            for host in hosts(free=True)
            if host.node_id in totals
        ]

    def _ask(self, need: ResourceNeed, on: Sequence[Host]) -> list[Reservation]:
        """Ask Ray for one on each of these hosts, and count them as reserved, so that no other of ours takes them."""
        asked = _bundle(resources_of(need))
        labels = [{NODE_LABEL: host.node_id} for host in on]
        group = placement_group([asked for _ in on], strategy="PACK", bundle_label_selector=labels)
        asked_for = [Reservation(need.role, host, resources_of(need), group, index) for index, host in enumerate(on)]
        self._reserved += asked_for
        self._holds.pop(need.role, None)
        return asked_for

    def _wait_granted(self, asked: list[Reservation], bound_s: float) -> list[Reservation]:
        """These when Ray has reserved them; none when it has not within the bound. Others may ask meanwhile.

        Of several hosts nobody knows which one did not answer: all are avoided for a while.
        """
        if not asked or asked[0].group.wait(bound_s):
            return asked
        remove_placement_group(asked[0].group)
        with self._lock:
            self._reserved = [each for each in self._reserved if each not in asked]
        self.avoid(asked, AVOIDED_S)
        return []


def end_actor(handle: Any) -> None:
    """Kill it; one that is dead already is none the worse."""
    with suppress(ValueError):
        ray.kill(handle)


def shortage_of(need: ResourceNeed) -> str:
    """Why nobody got a reservation, as far as Ray's report says."""
    found = plan([need], hosts(free=True))
    if not found.fits:
        return found.shortage()
    return (
        "Ray did not grant the placement group although its report shows it free, or the capacity is on avoided hosts"
    )


def options(need: ResourceNeed, reservation: Reservation, num_threads: int) -> dict[str, Any]:
    """What an actor on that reservation asks of Ray. Its threads are set before any library counts the machine's cores.

    A thread that waits spins for some microseconds and then gives its core away: roles share cores, where the library's
    default would hold the others up, and threads that sleep at once are slower than one alone.
    """
    threads = {name: str(num_threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    threads["GOMP_SPINCOUNT"] = "20000"
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
    return {
        "num_cpus": need.num_cpus,
        "num_gpus": need.num_gpus,
        "memory": int(need.memory_gib * GIB) or None,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(reservation.group, reservation.bundle),
        "runtime_env": {"env_vars": threads | quiet},
        # A dead one is never restarted behind our back.
        "max_restarts": 0,
    }


def _bundle(size: ResourceAmount) -> dict[str, float]:
    """As Ray names it."""
    bundle = {"CPU": size.cpus, "GPU": size.gpus, "memory": int(size.gib * GIB)}
    return {name: amount for name, amount in bundle.items() if amount}


def _with(free: Sequence[Host], reservations: Sequence[Reservation]) -> list[Host]:
    """These hosts, with what is reserved there."""
    left = {host.node_id: host for host in free}
    for each in reservations:
        host = left.get(each.host.node_id)
        if host is not None:
            left[host.node_id] = replace(host, free=host.free.plus(each.size))
    return list(left.values())
