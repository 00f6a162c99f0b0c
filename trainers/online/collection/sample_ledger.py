"""Sample accounting: every response of a run is issued, finished, scored, then trained on or dropped."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

from plumbob.rollout.journal import DropReason
from plumbob.rollout.rollout_heads import Response
from plumbob.rollout.rollout_records import SampleRequest
from plumbob.trainers.metrics.response_counts import CountsByVersion, ResponseCounts

NUM_VERSIONS = 64
"""Policy versions whose rows are kept, the newest: more than are ever in flight."""


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
        self._counts: defaultdict[int, ResponseCounts] = defaultdict(ResponseCounts)
        self._older = ResponseCounts()
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

    def finished(self, rollouts: Iterable[Response]) -> None:
        with self._lock:
            for rollout in rollouts:
                self._counts[self._in_flight[_name(rollout.request)]].finished += 1

    def scored(self, rollouts: Iterable[Response]) -> None:
        with self._lock:
            for rollout in rollouts:
                self._counts[self._in_flight[_name(rollout.request)]].scored += 1

    def trained(self, rollouts: Iterable[Response]) -> None:
        with self._lock:
            for rollout in rollouts:
                self._counts[self._in_flight.pop(_name(rollout.request))].trained += 1

    def dropped(self, rollouts: Iterable[Response], reason: DropReason) -> None:
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

    def counts(self) -> CountsByVersion:
        """As they are now; nothing that comes later changes them."""
        with self._lock:
            rows = {version: counts.copy() for version, counts in sorted(self._counts.items())}
            return CountsByVersion(rows, self._older.copy(), self._num_reissued)

    def completed(self) -> dict[str, Any]:
        """As JSON, without what is in flight: a resumed run issues that again. `taken`: the last final row."""
        with self._lock:
            rows = {version: counts.completed() for version, counts in sorted(self._counts.items())}
            issued = {version: counts for version, counts in rows.items() if counts.issued}
            return CountsByVersion(issued, self._older, self._num_reissued).as_dict() | {"taken": self._last_final}

    def load_state(self, completed: Mapping[str, Any]) -> None:
        """Resume where `completed` was taken. An older run has the rows of all versions there, none of them taken."""
        found = CountsByVersion.from_dict(completed)
        with self._lock:
            self._counts = defaultdict(ResponseCounts, found.versions)
            self._older, self._num_reissued = found.older, found.reissued
            self._last_final = completed.get("taken", -1)
            self._in_flight.clear()


def _name(request: SampleRequest) -> tuple[str, int]:
    """What tells a response from every other of the run."""
    return request.group_id, request.sample_index
