"""Processes below another: how many there are, and their end, whatever sessions and parents they gave themselves."""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

MAX_S = 2.0
"""How long processes are looked for that are started faster than they are stopped."""


def children_of(pid: int) -> list[int]:
    """Of all its threads; none where it is gone."""
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found


def descendants_of(pid: int, most: int) -> list[int]:
    """Its children, theirs, and so on; no more are looked for once there are more than `most`."""
    found, rest = list[int](), [pid]
    while rest and len(found) <= most:
        below = children_of(rest.pop())
        found += below
        rest += below
    return found


def end_trees(pids: Iterable[int]) -> None:
    """Kill processes, their process groups, and all that is below them.

    All are stopped first, as one that still runs could start others meanwhile.
    """
    stopped, rest = list[int](), list(pids)
    until = time.monotonic() + MAX_S
    while rest and time.monotonic() < until:
        for pid in rest:
            _send(pid, signal.SIGSTOP)
        stopped += rest
        known = set(stopped)
        rest = [child for pid in stopped for child in children_of(pid) if child not in known]
    for pid in stopped:
        _send(pid, signal.SIGKILL)


def _send(pid: int, what: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, what)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, what)  # Its group, where it leads one: what is in it was started by it.
