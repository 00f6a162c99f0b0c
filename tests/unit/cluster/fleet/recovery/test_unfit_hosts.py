"""Which hosts are left alone because workers could not begin there."""

from plumbob.cluster.fleet.recovery.unfit_hosts import UnfitHosts


def test_a_host_is_left_alone_after_two_failures_for_a_while() -> None:
    unfit, soon_over = UnfitHosts(duration_s=600.0), UnfitHosts(duration_s=0.0)
    for hosts in (unfit, soon_over):
        hosts.failed("a")
        hosts.failed("b")
        assert hosts.now() == set()
        hosts.failed("a")
    assert unfit.now() == {"a"} and soon_over.now() == set()
