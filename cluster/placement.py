"""Placement: which worker runs on which host, a pure plan from what a run needs and what the hosts have free."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from plumbob.cluster.resources import (
    TOLERANCE,
    Expected,
    Host,
    ResourceAmount,
    ResourceNeed,
    expected_gib,
    memory_fits,
    memory_lines,
    resources_of,
)
from plumbob.data.rendered_rows import RenderedRow

BUT_NOT_BY_MEMORY = "it fits by what the settings ask for, but not by the memory that is expected"


@dataclass(frozen=True)
class Plan:
    """What runs side by side at the run's widest moment, and where.

    Attributes:
        hosts: with what they have before anything of the plan is placed.
        placed: for each need the host of each worker; None when they do not fit together.
        notes: sentences about the run's input, such as what of it is left out.
        total: all that the hosts have together, where the needs would fit if others held nothing of it; else None.
        rows: one of each input as the run's models see it.
        expected: role -> what one of its workers is expected to take of its host's memory; empty where nobody asked.
    """

    needs: tuple[ResourceNeed, ...]
    hosts: tuple[Host, ...]
    placed: tuple[tuple[Host, ...], ...] | None
    notes: tuple[str, ...] = ()
    total: ResourceAmount | None = None
    rows: tuple[RenderedRow, ...] = ()
    expected: Expected = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        return self.placed is not None

    @property
    def memory_fits(self) -> bool | None:
        """Whether the memory that is expected is free; None where nothing is expected. It refuses nothing."""
        return memory_fits(self.needs, self.expected, self.hosts)

    @property
    def needed(self) -> ResourceAmount:
        return total(self.needs)

    def lines(self) -> list[str]:
        rows = []
        for index, need in enumerate(self.needs):
            where = "" if self.placed is None else f" on {hosts_in_words(self.placed[index])}"
            rows.append(f"{need.role:<8} {need.count} x {resources_of(need)} ({need.setting}={need.count}){where}")
        rows += [f"host     {host.address} has {host.free} free" for host in self.hosts]
        rows += [f"memory   {line}" for line in memory_lines(self.needs, self.expected, self.hosts)]
        rows += [f"note     {note}" for note in self.notes]
        fits = "it fits" if self.memory_fits is not False else BUT_NOT_BY_MEMORY
        return [*rows, f"together {self.needed}", fits if self.fits else self.what_is_missing()]

    def what_is_missing(self) -> str:
        """One sentence: the shortage, who has what is missing if anybody has, and the nearest counts that would fit."""
        if not self.hosts:
            return self.shortage()
        nearest = nearest_fit(self.needs, self.hosts)
        if self.total is not None:
            free = _free_together(self.hosts)
            held = f"others hold {self.total.plus(free, -1.0)} of its {self.total}"
            fewer = "" if nearest is None else f"; this would fit now: {_counts(nearest)}"
            return f"{self.shortage()} while {held}{fewer}"
        if nearest is None:
            lower = "lower *.num_cpus, *.num_gpus or *.memory_gib"
            return f"{self.shortage()}, and one worker of each role does not fit either: {lower}"
        return f"{self.shortage()}; this would fit: {_counts(nearest)}"

    def shortage(self) -> str:
        """What is missing, as a sentence without its end."""
        if not self.hosts:
            return "there is no host to run on: start Ray on one"
        missing = [
            f"{needed - has:.3g} {unit}"
            for needed, has, unit in zip(self.needed, _free_together(self.hosts), ("CPUs", "GPUs", "GiB"), strict=True)
            if needed > has + TOLERANCE
        ]
        return f"{' and '.join(missing)} are missing" if missing else self._what_fits_on_no_host()

    def _what_fits_on_no_host(self) -> str:
        """Of needs whose sum is free: the workers are too large for what is left on any one host."""
        largest = max(self.needs, key=resources_of)
        roomiest = max(self.hosts, key=lambda host: host.free)
        return (
            f"the workers do not fit on single hosts: one of role {largest.role} needs {resources_of(largest)}, and "
            f"the roomiest host, {roomiest.address}, has {roomiest.free}"
        )

    def as_dict(self) -> dict[str, Any]:
        placed = self.placed or ((),) * len(self.needs)
        return {
            "needs": [
                asdict(need) | {"hosts": [host.address for host in hosts]}
                for need, hosts in zip(self.needs, placed, strict=True)
            ],
            "hosts": [{"address": host.address, "free": host.free._asdict()} for host in self.hosts],
            "fits": self.fits,
            "memory_fits": self.memory_fits,
            "missing": None if self.fits else self.what_is_missing(),
            "notes": list(self.notes),
            "rows": [asdict(row) for row in self.rows],
            "expected_memory_gib": expected_gib(self.needs, self.expected),
        }


def plan(needs: Sequence[ResourceNeed], hosts: Sequence[Host], whole_hosts: Sequence[Host] = ()) -> Plan:
    """Hosts for all workers, spread or packed as each role asks; where that does not fit, as tightly as possible.

    Args:
        whole_hosts: the same hosts with all that they have, to tell a cluster that is busy from one that is too small.
    """
    placed = _arranged(needs, hosts, tightly=False) or _arranged(needs, hosts, tightly=True)
    is_busy = placed is None and bool(whole_hosts) and plan(needs, whole_hosts).fits
    return Plan(tuple(needs), tuple(hosts), placed, total=_free_together(whole_hosts) if is_busy else None)


def choose(need: ResourceNeed, hosts: Sequence[Host], placed: Mapping[str, int], tightly: bool = False) -> Host | None:
    """The host of the next worker; None where no host has the capacity.

    Args:
        placed: node id -> workers of this group that are there already.
        tightly: take the host with the least free, whatever the role asks.
    """
    able = [host for host in hosts if host.free.holds(resources_of(need))]
    if not able:
        return None
    if tightly:
        return min(able, key=lambda host: (host.free.gpus, host.free.cpus, host.free.gib))
    away = 1 if need.spread else -1
    return min(able, key=lambda host: (away * placed.get(host.node_id, 0), [-free for free in _gpus_first(host.free)]))


def nearest_fit(needs: Sequence[ResourceNeed], hosts: Sequence[Host]) -> tuple[ResourceNeed, ...] | None:
    """The same roles with fewer workers, taken from the largest group first; None if one of each is too many.

    Found by halving, with about log2(n) plans for n workers: what holds some workers holds fewer. Of one or two groups
    that is so of the plan too: the first is placed as if it were alone, and fewer of it leave more for the second.
    Of three or four the greedy plan may miss an arrangement that is there (in 1 of 3000 random cases on up to 3 hosts):
    what is found fits then too, but may be a few workers smaller than the largest that does.
    """
    fewer = _with_fewer_workers(needs)
    index = bisect_left(fewer, True, key=lambda some: plan(some, hosts).fits)
    return fewer[index] if index < len(fewer) else None


def evicted(need: ResourceNeed, hosts: Sequence[Host], held: Sequence[tuple[str, ResourceAmount]]) -> list[int] | None:
    """Which workers have to go so that a group fits; of these those that come first.

    Args:
        hosts: with what is free on them.
        held: (node id, what it holds) of each worker that may go.

    Returns:
        Their indices, none of which could stay; None where the group would not fit if all went.
    """

    def fits(evicted: Sequence[int]) -> bool:
        left = {host.node_id: host for host in hosts}
        for node_id, size in (held[index] for index in evicted):
            if node_id in left:
                left[node_id] = replace(left[node_id], free=left[node_id].free.plus(size))
        return plan([need], list(left.values())).fits

    enough = bisect_left(range(len(held) + 1), True, key=lambda count: fits(range(count)))
    if enough > len(held):
        return None
    evicted = list(range(enough))
    for index in reversed(range(enough)):
        others = [other for other in evicted if other != index]
        if fits(others):
            evicted = others
    return evicted


def total(needs: Sequence[ResourceNeed]) -> ResourceAmount:
    whole = ResourceAmount(0, 0, 0)
    for need in needs:
        whole = whole.plus(resources_of(need), need.count)
    return whole


def hosts_in_words(hosts: Sequence[Host]) -> str:
    """`10.0.0.1, 10.0.0.2 (3)`: the number of workers where there are several."""
    counts = Counter(host.address for host in hosts)
    return ", ".join(address if count == 1 else f"{address} ({count})" for address, count in counts.items())


def _free_together(hosts: Sequence[Host]) -> ResourceAmount:
    there = ResourceAmount(0, 0, 0)
    for host in hosts:
        there = there.plus(host.free)
    return there


def _counts(needs: Sequence[ResourceNeed]) -> str:
    return " ".join(f"{need.setting}={need.count}" for need in needs)


def _with_fewer_workers(needs: Sequence[ResourceNeed]) -> list[tuple[ResourceNeed, ...]]:
    """These needs, then one worker of the largest group less each time, of equal ones of the first; to one of each."""
    found = [tuple(needs)]
    while any(need.count > 1 for need in found[-1]):
        fewer = list(found[-1])
        largest = max(range(len(fewer)), key=lambda index: fewer[index].count)
        fewer[largest] = replace(fewer[largest], count=fewer[largest].count - 1)
        found.append(tuple(fewer))
    return found


def _arranged(
    needs: Sequence[ResourceNeed], hosts: Sequence[Host], tightly: bool
) -> tuple[tuple[Host, ...], ...] | None:
    """The largest workers are placed first; of equal ones those of the earlier need."""
    left = {host.node_id: host for host in hosts}
    named = dict(left)
    placed: dict[int, tuple[Host, ...]] = {}
    for index in sorted(
        range(len(needs)), key=lambda index: [-size for size in _gpus_first(resources_of(needs[index]))]
    ):
        counts: Counter[str] = Counter()
        chosen = []
        for _ in range(needs[index].count):
            host = choose(needs[index], list(left.values()), counts, tightly)
            if host is None:
                return None
            left[host.node_id] = replace(host, free=host.free.plus(resources_of(needs[index]), -1.0))
            counts[host.node_id] += 1
            chosen.append(named[host.node_id])
        placed[index] = tuple(chosen)
    return tuple(placed[index] for index in range(len(needs)))


def _gpus_first(size: ResourceAmount) -> tuple[float, float, float]:
    return size.gpus, size.cpus, size.gib
