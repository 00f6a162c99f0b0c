"""An engine that hangs, crashes or says what is wrong is a finding, and ends nothing but its own process."""

import sys
import time
from pathlib import Path

from plumbob.console.diagnosis.engine_program import TESTS
from plumbob.console.diagnosis.engines import ADVICE, DEEP_ENGINES, ENGINES, engine_check
from tests.support.environments import gone_soon


def check(code: str, timeout_s: float = 20.0):  # type: ignore[no-untyped-def]
    return engine_check("ray", [sys.executable, "-c", code], timeout_s)


def test_what_an_engine_answers_is_told() -> None:
    found = check('print(\'{"ok": true, "found": "two steps", "seconds": 0.25}\')')
    assert (found.name, found.ok, found.found, found.advice) == ("ray works", True, "two steps (0.2 s)", "")
    failed = check('print(\'{"ok": false, "found": "ImportError: no", "seconds": 0.1}\')')
    assert not failed.ok and failed.found.startswith("ImportError: no") and failed.advice == ADVICE["ray"]


def test_a_process_that_crashes_is_told_with_the_signal_and_the_last_line() -> None:
    crash = "import os, signal, sys\nprint('first\\nillegal instruction', file=sys.stderr, flush=True)\n"
    found = check(crash + "os.kill(os.getpid(), signal.SIGILL)")
    assert (found.ok, found.found) == (False, "its process ended with SIGILL: illegal instruction")
    assert check("raise SystemExit(3)").found == "its process ended with status 3: it printed nothing"


def test_a_process_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    """A child that outlives it would hold its output open."""
    code = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
        "time.sleep(60)"
    )
    began = time.monotonic()
    found = check(code, timeout_s=2.0)
    assert not found.ok and found.found.startswith("no answer within 2 s") and time.monotonic() - began < 15
    assert gone_soon(int((tmp_path / "pid").read_text()))


def test_every_engine_has_a_test_and_advice() -> None:
    assert {*ENGINES, *DEEP_ENGINES} == set(TESTS) == set(ADVICE)


def test_an_engine_works_here() -> None:
    found = engine_check("bitsandbytes", timeout_s=240.0)
    assert found.ok and found.seconds is not None, found.found
