"""When learners have joined, and whether in the place of a group that was lost: without a Ray."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plumbob.cluster.calls import Actor, Call
from plumbob.cluster.failures import LearnersLost
from plumbob.cluster.fleet import learner_ranks
from plumbob.cluster.fleet.learner_ranks import LearnerRanks
from plumbob.configs.settings.workers import LearnerRankSettings

LOST = LearnersLost("learner-0 died")
TWO = LearnerRankSettings(num_workers=2)


class AnyNumberOfHosts:
    """Reservations without end, and the fleet: actors that are names. `joined`: who, and whether for another."""

    def __init__(self) -> None:
        self.joined: list[tuple[str, bool]] = []
        self._numbers = count()

    def reserve_all(self, need: Any, anywhere: bool = False) -> list[Any]:
        return [SimpleNamespace(host=SimpleNamespace(address=f"10.0.0.{rank}")) for rank in range(need.count)]

    def are_usable(self, reservations: Any) -> bool:
        return True

    def avoid(self, reservations: Any, duration_s: float) -> None: ...

    def release(self, reservation: Any) -> None: ...

    def start_actor(self, need: Any, reservation: Any, actor_class: type, num_threads: int) -> Actor:
        call = SimpleNamespace(remote=lambda *_: None)
        return Actor(f"learner-{next(self._numbers)}", SimpleNamespace(free_address=call, join=call), Path("no.log"))

    def worker_joined(self, role: str, worker: str, host: str, is_replacement: bool) -> None:
        self.joined.append((worker, is_replacement))


def test_learners_have_joined_when_their_group_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([LOST, "10.0.0.0:1", LOST, "10.0.0.0:1", ["joined"] * 2, LOST, "10.0.0.0:1", ["joined"] * 2])

    def gather_ranks(calls: Sequence[Call], *_: object) -> list[Any]:
        answer = next(answers)
        if isinstance(answer, LearnersLost):
            raise answer
        return [answer] if isinstance(answer, str) else answer

    monkeypatch.setattr(learner_ranks, "gather_ranks", gather_ranks)
    monkeypatch.setattr(learner_ranks, "end_actor", lambda handle: None)
    hosts: Any = AnyNumberOfHosts()
    ranks = LearnerRanks(hosts, hosts, boot_timeout_s=60.0)
    for _ in range(2):  # One dies before it answers, one as the group is made.
        with pytest.raises(LearnersLost):
            ranks.get_or_start(TWO)
        ranks.stop_lost(LOST)
    assert hosts.joined == []
    ranks.get_or_start(TWO)
    assert hosts.joined == [("learner-4", False), ("learner-5", False)]
    ranks.stop_lost(LOST)
    with pytest.raises(LearnersLost):
        ranks.get_or_start(TWO)
    ranks.stop_lost(LOST)
    ranks.get_or_start(TWO)
    assert hosts.joined[2:] == [("learner-8", True), ("learner-9", True)]
    ranks.get_or_start(LearnerRankSettings(num_workers=2))  # A later stage with the same.
    assert len(hosts.joined) == 4
