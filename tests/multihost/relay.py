"""A slow cable: carries frames between two network interfaces, each late and one after the other.

Run as `python relay.py FIRST SECOND DELAY_MS RATE_KBIT` in the network namespace that has both, until it is killed. Not
every kernel has tc's netem, which does the same.
"""

import selectors
import socket
import sys
import time
from collections import deque
from contextlib import suppress

SOL_PACKET = 263
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
ETH_P_ALL = 3

LARGEST = 1 << 17
"""Bytes: more than any frame. Those of a virtual interface can be as large as IP packets, to be cut up later."""

QUEUE_BYTES = 1 << 22
"""What waits in one direction at most; more is dropped, as any link does."""


def open_interface(name: str) -> socket.socket:
    interface = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    interface.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    # Frames come with what the kernel has left to do to them: sums and cuts.
    interface.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    interface.bind((name, 0))
    interface.setblocking(False)
    return interface


class Direction:
    """Frames on their way to an interface."""

    def __init__(self, to: socket.socket, delay_s: float, bytes_per_s: float) -> None:
        self._to, self._delay_s, self._bytes_per_s = to, delay_s, bytes_per_s
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._free_at = 0.0

    def take(self, frame: bytes) -> None:
        if self._bytes + len(frame) > QUEUE_BYTES:
            return
        self._free_at = max(self._free_at, time.monotonic()) + len(frame) / self._bytes_per_s
        self._bytes += len(frame)
        self._waiting.append((self._free_at + self._delay_s, frame))

    def give(self) -> float | None:
        """Hand over what is due. Returns seconds until the next is, None when nothing waits."""
        while self._waiting:
            due, frame = self._waiting[0]
            early = due - time.monotonic()
            if early > 0:
                return early
            self._waiting.popleft()
            self._bytes -= len(frame)
            self._send(frame)
        return None

    def _send(self, frame: bytes) -> None:
        with suppress(OSError):  # A link that is down loses what it is given.
            self._to.send(frame)


def main(first: str, second: str, delay_ms: float, rate_kbit: float) -> None:
    interfaces = [open_interface(name) for name in (first, second)]
    directions = [Direction(to, delay_ms / 1000, rate_kbit * 125) for to in reversed(interfaces)]
    selector = selectors.DefaultSelector()
    for interface, direction in zip(interfaces, directions, strict=True):
        selector.register(interface, selectors.EVENT_READ, direction)
    print("ready", flush=True)
    while True:
        due = [seconds for direction in directions if (seconds := direction.give()) is not None]
        for key, _ in selector.select(min(due, default=None)):
            with suppress(BlockingIOError, OSError):
                key.data.take(key.fileobj.recv(LARGEST))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
