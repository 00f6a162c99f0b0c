"""What workers find out about their host."""

from plumbob.core.host_network import interface_of


def test_the_interface_that_has_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    # Debian gives a host's own name this address, which no interface has.
    assert interface_of("127.0.1.1") is None
