"""What a log tells of the crash that ended its process."""

import pytest

from plumbob.core.process_ends.crash_signals import crash_in

LOG = """2026-11-29T21:40:10.000Z loading the model
2026-11-29T21:40:13.000Z its last words
*** SIGILL received at time=1795988413 on cpu 0 ***
PC: @     0x7f41be6db000  (unknown)  (unknown)
    @     0x7f41bde5a050  (unknown)  (unknown)
[2026-11-29 21:40:13,483 E 16606 16606] logging.cc:474: *** SIGILL received at time=1795988413 on cpu 0 ***
"""


def test_a_crash_is_told_in_words_without_the_stack() -> None:
    crash = crash_in(LOG)
    assert crash is not None and crash.signal == "SIGILL"
    assert str(crash) == (
        "SIGILL, an illegal instruction: compiled code used one that this CPU lacks or that its operating system "
        "refuses"
    )
    assert crash.before.splitlines()[-1] == "2026-11-29T21:40:13.000Z its last words"
    assert "0x7f" not in crash.before


def test_a_signal_whose_meaning_is_not_known_is_named() -> None:
    assert str(crash_in(LOG.replace("SIGILL", "SIGSYS"))) == "SIGSYS"


@pytest.mark.parametrize("log", ["", "line 1\nline 2\n", "the user wrote SIGILL received at time=now\n"])
def test_a_log_without_a_crash(log: str) -> None:
    assert crash_in(log) is None
