"""Measures the way from one host to another."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.multihost import echo
from tests.multihost.hosts import PYTHON, Host

ECHO = [str(PYTHON), echo.__file__]


@contextmanager
def serving(host: Host) -> Iterator[None]:
    server = host.popen([*ECHO, "serve"], stdout=subprocess.PIPE)
    assert server.stdout is not None and server.stdout.readline() == "ready\n"
    yield
    server.kill()
    server.communicate()


def visit(guest: Host, server: Host, num_bytes: int = 0) -> tuple[float, float] | None:
    """Seconds there and back, and of a message of so many bytes; None when it cannot be reached."""
    done = guest.run([*ECHO, "visit", server.address, str(num_bytes)], timeout_s=60)
    return tuple(json.loads(done.stdout)) if done.returncode == 0 else None
