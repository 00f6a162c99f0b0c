"""Sample accounting: every response of a run is issued, finished, scored, then trained on or dropped."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from plumbob.rollout.journal import DropReason
from plumbob.rollout.rollout_records import Rollout, SampleRequest

NUM_VERSIONS = 64
"""Policy versions whose rows are kept, the newest: more than are ever in flight."""


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

    def add(self, other: "Counts") -> None:
        self.issued += other.issued
        self.finished += other.finished
        self.scored += other.scored
        self.trained += other.trained
        self.dropped += other.dropped

    def completed(self) -> dict[str, Any]:
        """The same without the responses whose end is still open."""
        completed = self.trained + self.dropped.total()
        return self.as_dict() | dict.fromkeys(("issued", "finished", "scored"), completed)


class SampleLedger:
    """Counts responses by the policy version that was the newest published when they were issued.

    A response stays in the row that it was issued in, whatever is published before it is finished, so that in each row
    issued = trained + dropped once nothing is in flight, and as many are finished and scored, but for those that were
    dropped before. Rows are final in the order of their versions: `take_final` gives each away once, and the newest
    NUM_VERSIONS stay, so that neither state nor cost grows with the run. May be used from several threads.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._version = 0
        self._counts: defaultdict[int, Counts] = defaultdict(Counts)
        self._older = Counts()
        self._last_final = -1
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

    def take_final(self, has_ended: bool = False) -> list[dict[str, Any]]:
        """The rows that have become final since the last call: {"version", "issued", ..., "dropped"}.

        Nothing of them is in flight, and a newer version is published. Once the run `has_ended`, all the rest are.
        """
        with self._lock:
            first_open = min(self._in_flight.values(), default=self._version)
            end = self._version + 1 if has_ended else min(first_open, self._version)
            final = sorted(version for version in self._counts if self._last_final < version < end)
            rows = [{"version": version} | self._counts[version].as_dict() for version in final]
            self._last_final = max([self._last_final, *final])
            for version in sorted(self._counts)[:-NUM_VERSIONS]:
                if version <= self._last_final:
                    self._older.add(self._counts.pop(version))
        return rows

    def as_dict(self) -> dict[str, Any]:
        """What JSON can carry.

        {"versions": {"3": {"issued", "finished", "scored", "trained": int, "dropped": {reason: int}}},
        "older": the sums of the versions before those, "reissued": int}
        """
        with self._lock:
            return self._content(Counts.as_dict)

    def completed(self) -> dict[str, Any]:
        """The same without what is in flight: a run that is resumed issues that again. `taken`: the last final row."""
        with self._lock:
            content = self._content(Counts.completed) | {"taken": self._last_final}
        return content | {"versions": {name: row for name, row in content["versions"].items() if row["issued"]}}

    def load_state(self, completed: Mapping[str, Any]) -> None:
        """Resume where `completed` was taken. An older run has the rows of all versions there, none of them taken."""
        with self._lock:
            rows = {int(version): _counts(row) for version, row in completed["versions"].items()}
            self._counts = defaultdict(Counts, rows)
            self._older = _counts(completed.get("older", {}))
            self._last_final = completed.get("taken", -1)
            self._in_flight.clear()
            self._num_reissued = completed["reissued"]

    def _content(self, show: Callable[[Counts], dict[str, Any]]) -> dict[str, Any]:
        rows = {str(version): show(counts) for version, counts in sorted(self._counts.items())}
        return {"versions": rows, "older": self._older.as_dict(), "reissued": self._num_reissued}


def _counts(row: Mapping[str, Any]) -> Counts:
    return Counts(**{**row, "dropped": Counter(row.get("dropped", {}))})


def _name(request: SampleRequest) -> tuple[str, int]:
    """What tells a response from every other of the run."""
    return request.group_id, request.sample_index
