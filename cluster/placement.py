"""Which worker runs on which host: a pure plan from what a run needs and what the hosts have, said before it starts."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from plumbob.cluster.resources import TOLERANCE, Amount, Host, Need, amount


@dataclass(frozen=True)
class Plan:
    """What runs side by side at the run's widest moment, and where.

    Attributes:
        hosts: with what they have before anything of the plan is placed.
        seats: for each need the host of each worker; None when they do not fit together.
    """

    needs: tuple[Need, ...]
    hosts: tuple[Host, ...]
    seats: tuple[tuple[Host, ...], ...] | None

    @property
    def fits(self) -> bool:
        return self.seats is not None

    @property
    def needed(self) -> Amount:
        return total(self.needs)

    def lines(self) -> list[str]:
        rows = []
        for place, need in enumerate(self.needs):
            where = "" if self.seats is None else f" on {hosts_in_words(self.seats[place])}"
            rows.append(f"{need.role:<8} {need.count} x {amount(need)} ({need.setting}={need.count}){where}")
        rows += [f"host     {host.address} has {host.free} free" for host in self.hosts]
        return [*rows, f"together {self.needed}", "it fits" if self.fits else self.what_is_missing()]

    def what_is_missing(self) -> str:
        """One sentence: what lacks, and the nearest counts that would fit."""
        if not self.hosts:
            return self.shortage()
        nearest = nearest_fit(self.needs, self.hosts)
        if nearest is None:
            lower = "lower *.num_cpus, *.num_gpus or *.memory_gib"
            return f"{self.shortage()}, and one worker of each role does not fit either: {lower}"
        fewer = " ".join(f"{need.setting}={need.count}" for need in nearest)
        return f"{self.shortage()}; this would fit: {fewer}"

    def shortage(self) -> str:
        """What lacks."""
        if not self.hosts:
            return "there is no host to run on: start Ray on one"
        there = Amount(*map(sum, zip(Amount(0, 0, 0), *(host.free for host in self.hosts), strict=True)))
        lacking = [
            f"{needed - has:.3g} {unit}"
            for needed, has, unit in zip(self.needed, there, ("CPUs", "GPUs", "GiB"), strict=True)
            if needed > has + TOLERANCE
        ]
        return f"{' and '.join(lacking)} are missing" if lacking else self._what_has_no_room()

    def _what_has_no_room(self) -> str:
        """Of needs whose sum is there: the workers are too large for what is left on any one host."""
        largest = max(self.needs, key=amount)
        roomiest = max(self.hosts, key=lambda host: host.free)
        return (
            f"the workers do not fit on single hosts: one of role {largest.role} needs {amount(largest)}, and the "
            f"roomiest host, {roomiest.address}, has {roomiest.free}"
        )

    def as_dict(self) -> dict[str, Any]:
        seats = self.seats or ((),) * len(self.needs)
        return {
            "needs": [
                asdict(need) | {"hosts": [host.address for host in hosts]}
                for need, hosts in zip(self.needs, seats, strict=True)
            ],
            "hosts": [{"address": host.address, "free": host.free._asdict()} for host in self.hosts],
            "fits": self.fits,
            "missing": None if self.fits else self.what_is_missing(),
        }


def plan(needs: Sequence[Need], hosts: Sequence[Host]) -> Plan:
    """Seats for all workers, spread or packed as each role asks; where that does not fit, as tightly as possible."""
    seats = _arranged(needs, hosts, tightly=False) or _arranged(needs, hosts, tightly=True)
    return Plan(tuple(needs), tuple(hosts), seats)


def choose(need: Need, hosts: Sequence[Host], seated: Mapping[str, int], tightly: bool = False) -> Host | None:
    """The host of the next worker, None where none has room.

    Args:
        seated: node id -> workers of this group that are there already.
        tightly: take the host with the least room, whatever the role asks.
    """
    able = [host for host in hosts if host.free.holds(amount(need))]
    if not able:
        return None
    if tightly:
        return min(able, key=lambda host: (host.free.gpus, host.free.cpus, host.free.gib))
    away = 1 if need.spread else -1
    return min(able, key=lambda host: (away * seated.get(host.node_id, 0), [-free for free in _gpus_first(host.free)]))


def nearest_fit(needs: Sequence[Need], hosts: Sequence[Host]) -> tuple[Need, ...] | None:
    """The same roles with fewer workers, taken from the largest group first; None if one of each is too many."""
    fewer = list(needs)
    while not plan(fewer, hosts).fits:
        largest = max(range(len(fewer)), key=lambda place: fewer[place].count)
        if fewer[largest].count == 1:
            return None
        fewer[largest] = replace(fewer[largest], count=fewer[largest].count - 1)
    return tuple(fewer)


def who_makes_room(need: Need, hosts: Sequence[Host], seats: Sequence[tuple[str, Amount]]) -> list[int] | None:
    """Which of these seats have to be given up, so that a group finds room; those that come first go first.

    Args:
        hosts: with what is free on them.
        seats: (node id, what its worker holds) of those that may go.

    Returns:
        Their places, none of which could stay; None where all together would not do.
    """

    def fits(going: Sequence[int]) -> bool:
        left = {host.node_id: host for host in hosts}
        for node_id, held in (seats[place] for place in going):
            if node_id in left:
                left[node_id] = replace(left[node_id], free=left[node_id].free.plus(held))
        return plan([need], list(left.values())).fits

    enough = bisect_left(range(len(seats) + 1), True, key=lambda count: fits(range(count)))
    if enough > len(seats):
        return None
    going = list(range(enough))
    for place in reversed(range(enough)):
        others = [other for other in going if other != place]
        if fits(others):
            going = others
    return going


def total(needs: Sequence[Need]) -> Amount:
    whole = Amount(0, 0, 0)
    for need in needs:
        whole = whole.plus(amount(need), need.count)
    return whole


def hosts_in_words(hosts: Sequence[Host]) -> str:
    """`10.0.0.1, 10.0.0.2 (3)`: the number of workers where there are several."""
    counts = Counter(host.address for host in hosts)
    return ", ".join(address if count == 1 else f"{address} ({count})" for address, count in counts.items())


def _arranged(needs: Sequence[Need], hosts: Sequence[Host], tightly: bool) -> tuple[tuple[Host, ...], ...] | None:
    """The largest workers are seated first; of equal ones those of the earlier need."""
    left = {host.node_id: host for host in hosts}
    named = dict(left)
    seats: dict[int, tuple[Host, ...]] = {}
    for place in sorted(range(len(needs)), key=lambda place: [-size for size in _gpus_first(amount(needs[place]))]):
        seated: Counter[str] = Counter()
        chosen = []
        for _ in range(needs[place].count):
            host = choose(needs[place], list(left.values()), seated, tightly)
            if host is None:
                return None
            left[host.node_id] = replace(host, free=host.free.plus(amount(needs[place]), -1.0))
            seated[host.node_id] += 1
            chosen.append(named[host.node_id])
        seats[place] = tuple(chosen)
    return tuple(seats[place] for place in range(len(needs)))


def _gpus_first(size: Amount) -> tuple[float, float, float]:
    return size.gpus, size.cpus, size.gib
