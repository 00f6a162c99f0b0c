"""Accounts for every response of a run: issued, finished, scored, then trained on or dropped."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from plumbob.rollout.journal import DropReason
from plumbob.rollout.rollout_records import Rollout, SampleRequest


@dataclass
class Counts:
    """Of the responses that were issued under one policy version; `dropped`: reason -> how many."""

    issued: int = 0
    finished: int = 0
    scored: int = 0
    trained: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        return vars(self) | {"dropped": dict(self.dropped)}

    def settled(self) -> dict[str, Any]:
        """The same without the responses whose end is still open."""
        settled = self.trained + self.dropped.total()
        return self.as_dict() | dict.fromkeys(("issued", "finished", "scored"), settled)


class Ledger:
    """Counts responses by the policy version that was the newest published when they were issued.

    A response stays in the row that it was issued in, whatever is published before it is finished, so that in each row
    issued = trained + dropped once nothing is in flight, and as many are finished and scored, but for those that were
    dropped before. May be used from several threads.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._version = 0
        self._counts: defaultdict[int, Counts] = defaultdict(Counts)
        self._in_flight: dict[tuple[str, int], int] = {}
        self._num_reissued = 0

    def published(self, version: int) -> None:
        """Responses that are issued from now on belong to this version."""
        with self._lock:
            self._version = version

    def issued(self, requests: Sequence[SampleRequest]) -> None:
        with self._lock:
            self._in_flight |= dict.fromkeys(map(_name, requests), self._version)
            self._counts[self._version].issued += len(requests)

    def reissued(self, count: int) -> None:
        """Responses that were given to another worker, because theirs was lost; they are not issued a second time."""
        with self._lock:
            self._num_reissued += count

    def finished(self, rollouts: Iterable[Rollout]) -> None:
        with self._lock:
            for rollout in rollouts:
                self._counts[self._in_flight[_name(rollout.request)]].finished += 1

    def scored(self, rollouts: Iterable[Rollout]) -> None:
        with self._lock:
            for rollout in rollouts:
                self._counts[self._in_flight[_name(rollout.request)]].scored += 1

    def trained(self, rollouts: Iterable[Rollout]) -> None:
        with self._lock:
            for rollout in rollouts:
                self._counts[self._in_flight.pop(_name(rollout.request))].trained += 1

    def dropped(self, rollouts: Iterable[Rollout], reason: DropReason) -> None:
        with self._lock:
            for rollout in rollouts:
                self._counts[self._in_flight.pop(_name(rollout.request))].dropped[reason] += 1

    def stopped(self) -> None:
        """Nobody will learn from what is in flight: the run ends before its last step, by its own decision."""
        with self._lock:
            for version in self._in_flight.values():
                self._counts[version].dropped["stopped"] += 1
            self._in_flight.clear()

    def as_dict(self) -> dict[str, Any]:
        """What JSON can carry.

        {"versions": {"3": {"issued", "finished", "scored", "trained": int, "dropped": {reason: int}}}, "reissued": int}
        """
        with self._lock:
            return self._content(Counts.as_dict)

    def settled(self) -> dict[str, Any]:
        """The same without what is in flight: a run that is resumed issues that again."""
        with self._lock:
            content = self._content(Counts.settled)
        return content | {"versions": {name: row for name, row in content["versions"].items() if row["issued"]}}

    def load_state(self, settled: Mapping[str, Any]) -> None:
        """Go on where `settled` was taken."""
        with self._lock:
            rows = {int(version): row for version, row in settled["versions"].items()}
            counts = {version: Counts(**row | {"dropped": Counter(row["dropped"])}) for version, row in rows.items()}
            self._counts = defaultdict(Counts, counts)
            self._in_flight.clear()
            self._num_reissued = settled["reissued"]

    def _content(self, show: Callable[[Counts], dict[str, Any]]) -> dict[str, Any]:
        rows = {str(version): show(counts) for version, counts in sorted(self._counts.items())}
        return {"versions": rows, "reissued": self._num_reissued}


def _name(request: SampleRequest) -> tuple[str, int]:
    """What tells a response from every other of the run."""
    return request.group_id, request.sample_index
