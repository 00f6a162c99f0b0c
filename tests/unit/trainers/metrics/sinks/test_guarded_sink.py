"""A sink that is somewhere else: whatever it does, the run continues, hears of it once, and is not held up."""

import threading
import time

import pytest

from plumbob.trainers.metrics.sinks.guarded_sink import GuardedSink
from plumbob.trainers.metrics.step_record import StepRecord

SOON_S = 10.0


def record(step: int) -> StepRecord:
    return StepRecord("ppo", step, 4, {"kl": 0.5}, {"learn": 0.25})


class FailingSink:
    """Raises where `fails_at` says: "open", a step's number, "close"."""

    def __init__(self, calls: list[str], fails_at: str = "") -> None:
        self.calls, self.fails_at = calls, fails_at
        self._note("open")

    def append(self, record: StepRecord, now: float) -> None:
        self._note(str(record.step))

    def truncate_after(self, step: int) -> None:
        self._note(f"back to {step}")

    def close(self, has_failed: bool) -> None:
        self._note(f"closed {has_failed}" if self.fails_at != "close" else "close")

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call == self.fails_at:
            raise ConnectionError("no route to host")


def run_through(fails_at: str) -> tuple[list[str], list[str]]:
    """Calls that the sink had, and what the user was told, of a run of two steps that is resumed after its first."""
    calls: list[str] = []
    told: list[str] = []
    sink = GuardedSink("wandb", lambda: FailingSink(calls, fails_at), told.append)
    sink.append(record(1), 1.0)
    sink.truncate_after(1)
    sink.append(record(2), 2.0)
    sink.close(False)
    return calls, told


def test_calls_reach_it_in_their_order() -> None:
    assert run_through("nowhere") == (["open", "1", "back to 1", "2", "closed False"], [])


@pytest.mark.parametrize(
    ("fails_at", "calls", "how"),
    [
        ("open", ["open"], "cannot be opened: ConnectionError: no route to host"),
        (
            "1",
            ["open", "1", "back to 1", "2", "closed False"],
            "failed, and is tried again at the next step: ConnectionError: no route to host",
        ),
        (
            "close",
            ["open", "1", "back to 1", "2", "close"],
            "failed, and is tried again at the next step: ConnectionError: no route to host",
        ),
    ],
)
def test_what_it_raises_is_said_once(fails_at: str, calls: list[str], how: str) -> None:
    assert run_through(fails_at) == (calls, [f"wandb {how}; the run continues, and its own folder has everything"])


def test_each_step_may_fail_and_is_said_once() -> None:
    told: list[str] = []

    class Broken(FailingSink):
        def append(self, record: StepRecord, now: float) -> None:
            raise RuntimeError(f"step {record.step} was refused")

    sink = GuardedSink("mlflow", lambda: Broken([]), told.append)
    for step in range(1, 50):
        sink.append(record(step), float(step))
    sink.close(False)
    assert len(told) == 1 and "RuntimeError: step 1 was refused" in told[0]


def test_one_that_hangs_costs_a_bounded_wait_at_the_end_alone() -> None:
    told: list[str] = []
    never = threading.Event()

    class Hanging(FailingSink):
        def append(self, record: StepRecord, now: float) -> None:
            never.wait(60)

    sink = GuardedSink("trackio", lambda: Hanging([]), told.append, close_s=0.2)
    began = time.monotonic()
    for step in range(1, 20):
        sink.append(record(step), float(step))
    assert time.monotonic() - began < SOON_S and told == []
    sink.close(True)
    assert time.monotonic() - began < SOON_S
    assert told == [
        "trackio has not taken everything 0.2 s after the end: its last steps may be missing; the run continues, and "
        "its own folder has everything"
    ]
    never.set()


def test_one_that_hangs_as_it_opens_is_given_up_once_too_much_waits_for_it() -> None:
    told: list[str] = []
    never = threading.Event()
    calls: list[str] = []

    def open_late() -> FailingSink:
        never.wait(60)
        return FailingSink(calls)

    sink = GuardedSink("wandb", open_late, told.append, max_waiting=3, close_s=SOON_S)
    for step in range(1, 20):
        sink.append(record(step), float(step))
    sink.close(False)
    assert told == [
        "wandb has not taken the last 3 calls, and is given no more; the run continues, and its own folder has "
        "everything"
    ]
    never.set()
    sink._thread.join(SOON_S)
    assert calls == ["open"]
