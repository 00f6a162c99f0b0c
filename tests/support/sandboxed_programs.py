"""Programs in sandboxes: what they find, whether they pass, and that nothing is left of them."""

import time
from collections.abc import Callable

import psutil

from plumbob.reward.programs.code_scorer import CodeScorer
from plumbob.reward.programs.inside.sandbox_program import FIRST_UID
from plumbob.reward.scorer import ScoreRequest

LIMITS = {"timeout_s": 8.0, "cpu_s": 2.0, "memory_gib": 0.25}


def passes(scorer: CodeScorer, program: str, *tests: str) -> bool:
    """Whether all pass; and it is over in its time, with nothing left of it."""
    began = time.monotonic()
    (found,) = scorer.score([ScoreRequest("q", program, {"tests": list(tests)})])
    assert time.monotonic() - began < LIMITS["timeout_s"] + 10
    assert_soon(lambda: leftover() == [])
    return found.total == 1.0


def leftover() -> list[str]:
    """Processes of sandboxes that run, by their program and by the users that they alone have."""
    return [
        str(one)
        for one in psutil.process_iter(["uids", "cmdline", "status"])
        if one.info["status"] != psutil.STATUS_ZOMBIE
        and (
            (one.info["uids"] and one.info["uids"].real >= FIRST_UID)
            or any("sandbox_program" in argument for argument in one.info["cmdline"] or ())
        )
    ]


def said_by(scorer: CodeScorer, body: str, expected: str) -> None:
    """What a function of the program's finds is as expected: seen by a test that compares."""
    lines = "\n".join(f"    {line}" for line in body.strip("\n").splitlines())
    program = f"import os, sys, signal, ctypes, time\ndef f():\n{lines}"
    assert passes(scorer, program, f"assert f() == {expected}"), body


def assert_soon(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
