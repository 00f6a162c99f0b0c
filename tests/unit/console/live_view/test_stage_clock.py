"""How much longer a stage takes, on a clock that is set by hand."""

from collections.abc import Callable

import pytest

from plumbob.console.live_view.stage_clock import StageClock
from plumbob.trainers.metrics.step_record import StepRecord


def step(number: int, num_steps: int = 20) -> StepRecord:
    return StepRecord("ppo", number, num_steps, {}, {"sample": 3.0, "learn": 1.0})


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    def set_clock(seconds: float) -> None:
        monkeypatch.setattr("time.monotonic", lambda: seconds)

    return set_clock


def test_starting_the_workers_is_not_counted_into_the_steps(at: Callable[[float], None]) -> None:
    at(0.0)
    clock = StageClock.start()
    at(64.0)  # A minute of starting, and the first step's 4 s.
    assert clock.remaining_s(step(1)) == 19 * 4.0
    at(76.0)  # Two more in 12 s.
    assert clock.remaining_s(step(3)) == 17 * 6.0
    assert clock.elapsed_s() == 76.0


def test_a_resumed_stage_does_not_begin_at_its_first_step(at: Callable[[float], None]) -> None:
    at(0.0)
    clock = StageClock.start()
    at(30.0)
    assert clock.remaining_s(step(11)) == 9 * 4.0
    at(35.0)
    assert clock.remaining_s(step(12)) == 8 * 5.0
    at(60.0)  # Its learners were lost, and it began again behind step 10.
    assert clock.remaining_s(step(11)) == 9 * 4.0
