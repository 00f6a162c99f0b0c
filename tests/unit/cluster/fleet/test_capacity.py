"""How long capacity is waited for, and when others are evicted."""

import time
from typing import cast

import pytest

from plumbob.cluster.fleet.capacity import ShortageTracker
from plumbob.cluster.fleet.pool_backend import PoolBackend
from plumbob.core.errors import RunFailed


class ShortOfGpus:
    """The half of a pool's host that a shortage concerns."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.evicted_at: list[float] = []

    def notify(self, message: str) -> None:
        self.notes.append(message)

    def shortage(self) -> str:
        return "a GPU is missing"

    def evict(self) -> None:
        self.evicted_at.append(time.monotonic())


def capacity_of(host: ShortOfGpus, bound_s: float) -> ShortageTracker:
    return ShortageTracker("rollout", bound_s, cast(PoolBackend, host))


def test_capacity_is_waited_for_from_when_nobody_is_left() -> None:
    host = ShortOfGpus()
    capacity = capacity_of(host, 0.0)
    for num_left in (3, 3, 0):  # However long it was short before.
        capacity.handle_shortage(num_left)
    waiting = (
        "waiting up to 0 s (cluster.boot_timeout_s) for capacity for a rollout worker, and no worker is left: "
        "a GPU is missing"
    )
    assert host.notes == ["no host has capacity for another rollout worker; running with 3", waiting]
    with pytest.raises(
        RunFailed,
        match=r"no capacity for a rollout worker after 0 s \(cluster.boot_timeout_s\), and no worker is left: a GPU is",
    ):
        capacity.handle_shortage(0)
    capacity.handle_enough()
    capacity.handle_shortage(0)
    assert (host.notes[2:], host.evicted_at) == ([waiting], [])


def test_others_are_evicted_after_a_while_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now, host = [0.0], ShortOfGpus()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    capacity = capacity_of(host, 600.0)
    seen = ((0.0, 1), (4.0, 0), (8.0, 0), (9.5, 0), (12.0, 0), (19.0, 0), (20.0, 0), (30.0, 1), (40.0, 0), (46.0, 0))
    for now[0], num_left in seen:
        capacity.handle_shortage(num_left)
    # More than 5 s after nobody was left (4 and 40), and more than 10 s after others were evicted last (9.5).
    assert host.evicted_at == [9.5, 20.0, 46.0]
