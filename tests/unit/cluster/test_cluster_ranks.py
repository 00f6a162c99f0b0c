"""Where the learner processes are seated."""

from typing import Any

import pytest

from cluster import ranks
from cluster.needs import Need
from cluster.ranks import Ranks

LEARNERS = Need("learner", "learner.num_workers", 2, 0.25, 0.0, 0.0, spread=False)


class OnlyLeaving:
    """A seating with room on hosts alone that will be taken away."""

    def __init__(self) -> None:
        self.asked: list[bool] = []

    def take_all(self, need: Need, anywhere: bool = False) -> list[str]:
        self.asked.append(anywhere)
        return ["seat"] * need.count if anywhere else []


def test_any_host_will_do_when_there_is_no_room_on_those_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "POLL_S", 0.05)
    monkeypatch.setattr(ranks, "CHOOSY_S", 0.1)
    seating: Any = OnlyLeaving()
    start: Any = None
    said: list[str] = []
    assert len(Ranks(seating, start, 60.0, said.append)._seats_for(LEARNERS)) == 2
    # Looked for elsewhere again first: what Ray reports as free is a moment old.
    assert seating.asked[:2] == [False, False] and seating.asked[-1]
    assert said == ["waiting up to 60 s for room for 2 learner workers"]
