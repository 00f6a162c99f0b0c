"""Where a process listens: on one address of its host (`listen_on`), and a server's socket (`listening_socket`)."""

import os
import socket

import psutil

from plumbob.core.errors import UserError

LOOPBACK = "127.0.0.1"
"""Reached by processes of this machine alone."""


def interface_of(address: str) -> str | None:
    """The interface of this host that has the address; None for one that leads to none, as Debian's 127.0.1.1."""
    for name, addresses in psutil.net_if_addrs().items():
        if address in (each.address for each in addresses):
            return name
    return None


def listen_on(address: str) -> None:
    """Tell the libraries of this process to listen on that address of its host, before they begin to.

    By themselves they look the host's name up, which need not lead to the network that the hosts share. A user's own
    choice for that stands, but none opens to a network what belongs on the loopback interface.
    """
    interface = interface_of(address)
    if interface is None:
        return
    chosen = {"VLLM_HOST_IP": address, "GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}
    for name, value in chosen.items():
        if address == LOOPBACK:
            os.environ[name] = value
        else:
            os.environ.setdefault(name, value)


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket of a server, on which others can connect. Raises UserError where nothing can listen there.

    Args:
        port: 0 takes a free one.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except (OSError, OverflowError) as error:
        raise UserError(f"nothing can listen on {host}, port {port}: {error}; give another --host or --port") from error
    return listening
