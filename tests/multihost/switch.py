"""The bridge that joins the hosts, and the cable of each, which can be cut and made slow."""

import subprocess
import sys
from pathlib import Path

from tests.multihost.namespaces import STOP_S, NamespacedCommand, Namespaces

INTERFACE = "eth0"
"""The one network interface of a host."""

RELAY = Path(__file__).with_name("relay.py")


class Switch:
    """A bridge in namespaces of its own: nothing of it is on the machine's network.

    `cable-NAME` is the bridge's end of a host's cable. While the cable is slow, that is off the bridge, and a relay
    carries its frames to `slow-NAME`, whose other end `port-NAME` is on the bridge.
    """

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._relays: dict[str, NamespacedCommand] = {}
        self._ip("link", "add", "bridge", "type", "bridge")
        self._ip("link", "set", "bridge", "up")

    def join(self, host: Namespaces, address: str) -> None:
        cable = f"cable-{host.name}"
        self._ip("link", "add", cable, "type", "veth", "peer", "name", INTERFACE, "netns", str(host.first_pid))
        self._ip("link", "set", cable, "master", "bridge", "up")
        host.enter_network("ip", "address", "add", f"{address}/24", "dev", INTERFACE)
        host.enter_network("ip", "link", "set", INTERFACE, "up")

    def cut(self, name: str) -> None:
        self._ip("link", "set", f"cable-{name}", "down")

    def slow(self, name: str, delay_ms: float, rate_kbit: float) -> None:
        self._ip("link", "add", f"slow-{name}", "type", "veth", "peer", "name", f"port-{name}")
        for end in (f"slow-{name}", f"port-{name}"):
            self._ip("link", "set", end, "up")
        relay = self._namespaces.popen(
            [sys.executable, str(RELAY), f"cable-{name}", f"slow-{name}", str(delay_ms), str(rate_kbit)],
            stdout=subprocess.PIPE,
        )
        self._relays[name] = relay
        if relay.stdout.readline() != "ready\n":
            raise RuntimeError(f"the relay of {name} ended with status {relay.wait(STOP_S)}")
        self._ip("link", "set", f"cable-{name}", "nomaster")
        self._ip("link", "set", f"port-{name}", "master", "bridge")

    def mend(self, name: str) -> None:
        """Whole and as fast as it was."""
        if name in self._relays:
            relay = self._relays.pop(name)
            relay.kill()
            relay.wait(STOP_S)
            self._ip("link", "delete", f"slow-{name}")
        self._ip("link", "set", f"cable-{name}", "master", "bridge", "up")

    def _ip(self, *command: str) -> None:
        self._namespaces.enter_network("ip", *command)
