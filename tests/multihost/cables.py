"""Measures the way from one host to another."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.multihost import echo
from tests.multihost.hosts import PYTHON, SimulatedHost

ECHO = [str(PYTHON), echo.__file__]
VISIT_S = 60.0

Times = tuple[float, float]
"""Seconds there and back, and of a message of some bytes; None stands for a server that cannot be reached."""


@contextmanager
def serving(host: SimulatedHost) -> Iterator[None]:
    server = host.popen([*ECHO, "serve"], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        yield
    finally:
        server.kill()
        server.communicate()


@contextmanager
def visitor(guest: SimulatedHost, server: SimulatedHost, num_bytes: int = 0) -> Iterator[Callable[[], Times | None]]:
    """One who sets out when called, once: what starting a process takes is none of the way's."""
    process = guest.popen(
        [*ECHO, "visit", server.address, str(num_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )

    def set_out() -> Times | None:
        out, _ = process.communicate("go\n", timeout=VISIT_S)
        return tuple(json.loads(out)) if process.returncode == 0 else None

    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield set_out
    finally:
        process.kill()
        process.communicate()


def visit(guest: SimulatedHost, server: SimulatedHost, num_bytes: int = 0) -> Times | None:
    with visitor(guest, server, num_bytes) as set_out:
        return set_out()
