"""A Ray driver on a host, which does what a test asks of it: calls in, results out, a line of JSON each.

The driver is `python -m tests.multihost.driver HOST:PORT`; a test has a `RayConsole`.
"""

import json
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from tests.multihost.hosts import PYTHON, SimulatedHost

RESPONSE_S = 60.0


class Guest:
    """An actor that knows where it is and how often it was asked: one that was started again has forgotten."""

    def __init__(self) -> None:
        self._calls = 0

    def ask(self) -> tuple[str, int]:
        self._calls += 1
        return socket.gethostname(), self._calls


class Driver:
    """What the driver can do."""

    def __init__(self) -> None:
        self._guests: dict[str, Any] = {}

    def alive(self) -> list[str]:
        """Addresses of the hosts that Ray takes for alive."""
        return sorted(self.node_ids().values())

    def node_ids(self) -> dict[str, str]:
        """Of what Ray takes for alive: the id that a host has until its Ray is started again -> address."""
        return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}

    def place(self, address: str) -> tuple[str, int]:
        """Start a guest on that host. Returns its name and 1."""
        self._guests[address] = ray.remote(num_cpus=0, resources={f"node:{address}": 0.01})(Guest).remote()
        return self.visit(address)

    def visit(self, address: str) -> tuple[str, int] | str:
        """The name of the guest's host and how often it was asked; or what became of it."""
        try:
            response: tuple[str, int] = ray.get(self._guests[address].ask.remote(), timeout=RESPONSE_S)
        except RayError as error:
            return type(error).__name__
        return response


class RayConsole:
    """The test's end of a driver."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def alive(self) -> list[str]:
        return self._call("alive")

    def node_ids(self) -> dict[str, str]:
        return self._call("node_ids")

    def place(self, address: str) -> tuple[str, int]:
        return tuple(self._call("place", address))

    def begin_visit(self, address: str) -> None:
        self._send("visit", address)

    def end_visit(self) -> tuple[str, int] | str:
        response = self._receive()
        return response if isinstance(response, str) else tuple(response)

    def visit(self, address: str) -> tuple[str, int] | str:
        self.begin_visit(address)
        return self.end_visit()

    def _call(self, name: str, *arguments: str) -> Any:
        self._send(name, *arguments)
        return self._receive()

    def _send(self, *call: str) -> None:
        print(json.dumps(call), file=self._process.stdin, flush=True)

    def _receive(self) -> Any:
        out = self._process.stdout
        assert out is not None
        assert select.select([out], [], [], 2 * RESPONSE_S)[0], "the driver on the host does not answer"
        return json.loads(out.readline())


@contextmanager
def ray_console(host: SimulatedHost, address: str) -> Iterator[RayConsole]:
    """A driver on that host."""
    command = [str(PYTHON), "-m", "tests.multihost.driver", address]
    process = host.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield RayConsole(process)
    finally:
        process.kill()
        process.communicate(timeout=RESPONSE_S)


def main(address: str) -> None:
    responses, sys.stdout = sys.stdout, sys.stderr  # Ray prints of its own accord.
    ray.init(address, log_to_driver=False, logging_level="error")
    driver = Driver()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(getattr(driver, name)(*arguments)), file=responses, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
