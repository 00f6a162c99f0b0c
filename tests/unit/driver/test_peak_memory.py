"""The peak of a run's memory is seen although its PSS is read at a new height alone."""

import time

from plumbob.driver.peak_memory import GIB, PeakMemory

HELD = 256 * 2**20


def held(seconds: float) -> None:
    """Touch every page of so many bytes, and keep them for a while."""
    block = bytearray(b"x") * HELD
    time.sleep(seconds)
    del block


def test_a_peak_between_two_looks_of_the_caller_is_seen_and_then_forgotten() -> None:
    with PeakMemory(interval_s=0.02) as memory:
        before = memory.take()
        held(1.0)
        assert memory.take() > before + 0.8 * HELD / GIB
        # The peak before does not hide the next, which is as high.
        held(1.0)
        assert memory.take() > before + 0.8 * HELD / GIB
        assert memory.take() < before + 0.5 * HELD / GIB
