"""The TCP sockets on which processes listen, as the kernel lists them."""

import socket
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psutil

LISTENING = "0A"
"""The kernel's number of that state."""

PREFIX = "socket:["


class ListeningSocket(NamedTuple):
    """Of the process `pid`, whose command line begins with `name`.

    A process that it has forked holds it too and has its command line, for as long as it runs no other program: the
    `inode`, one in the whole machine, says that the socket is the same.
    """

    pid: int
    name: str
    address: str
    port: int
    inode: int


def listening(processes: Iterable[psutil.Process]) -> set[ListeningSocket]:
    """Each such socket that one of them holds."""
    found = set()
    for process in processes:
        try:
            inodes = {link[len(PREFIX) : -1] for link in _links(process.pid) if link.startswith(PREFIX)}
            there = _listening_inodes(process.pid)
            name = process.cmdline()[0]
            found |= {ListeningSocket(process.pid, name, *there[inode], int(inode)) for inode in inodes & there.keys()}
        except (OSError, IndexError, psutil.NoSuchProcess):  # It has ended.
            continue
    return found


def _links(pid: int) -> list[str]:
    return [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]


def _listening_inodes(pid: int) -> dict[str, tuple[str, int]]:
    """Inode -> address and port of all listening sockets on the network that the process is on."""
    rows = [
        line.split()
        for kind in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]
    ]
    return {row[9]: _address(row[1]) for row in rows if row[3] == LISTENING}


def _address(written: str) -> tuple[str, int]:
    """Of `0100007F:0016`: words of 32 bits in the machine's order, then the port. An IPv4 one inside IPv6 as IPv4."""
    address, _, port = written.partition(":")
    words = bytes.fromhex(address)
    packed = b"".join(words[start : start + 4][::-1] for start in range(0, len(words), 4))
    family = socket.AF_INET6 if len(packed) == 16 else socket.AF_INET
    return socket.inet_ntop(family, packed).removeprefix("::ffff:"), int(port, 16)
