"""How many rollout workers a run may have, on a real Ray."""

from dataclasses import replace

import pytest

import plumbob.cluster.admission
from plumbob.cluster.admission import check_drain, check_scale
from plumbob.cluster.nodes import living_nodes
from plumbob.cluster.resources import Host, ResourceAmount, ResourceNeed
from plumbob.cluster.run_status import AutoscaleBounds
from plumbob.core.errors import UserError
from tests.support.run_statuses import NO_STATUS

pytestmark = pytest.mark.usefixtures("one_cpu")

ROLLOUT = ResourceNeed("rollout", "rollout.num_workers", 2, 0.5, 0.0, 0.0, spread=True)
STATUS = replace(NO_STATUS, rollout=ROLLOUT)


def test_what_a_run_may_be_scaled_to() -> None:
    assert check_scale(STATUS, 1, ()) == 2
    # One CPU is free: room for two of half a CPU more.
    assert check_scale(STATUS, 4, ()) == 2
    with pytest.raises(UserError, match=r"--rollout-workers 5: there are 2 now, and for 3 more 0\.5 CPUs are missing"):
        check_scale(STATUS, 5, ())
    with pytest.raises(UserError, match="--rollout-workers 0: expected 1 or more"):
        check_scale(STATUS, 0, ())
    with pytest.raises(UserError, match="this run has no rollout workers now"):
        check_scale(NO_STATUS, 2, ())


def test_draining_hosts_have_no_capacity() -> None:
    with pytest.raises(UserError, match=r"--rollout-workers 3: there are 2 now, and for 1 more there is no host"):
        check_scale(STATUS, 3, living_nodes())


@pytest.mark.parametrize(("number", "setting"), [(1, "min_workers=2"), (4, "max_workers=3")])
def test_what_autoscaling_would_undo_is_refused(number: int, setting: str) -> None:
    status = replace(STATUS, autoscale=AutoscaleBounds(2, 3))
    assert check_scale(status, 3, ()) == 2
    with pytest.raises(UserError, match=rf"--rollout-workers {number}: the run scales by itself within rollout\.auto"):
        check_scale(status, number, ())
    with pytest.raises(UserError, match=rf"rollout\.autoscale\.{setting}; `plumbob stop` it"):
        check_scale(status, number, ())


def test_a_host_may_only_leave_where_others_can_do_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"n1": 0.0, "n2": 1.0, "n3": 1.0, "n4": 0.4}  # The head has no room for workers.
    made = tuple(Host(f"10.0.0.{name[1]}", name, ResourceAmount(cpus, 0.0, 8.0)) for name, cpus in sizes.items())
    monkeypatch.setattr(plumbob.cluster.admission, "hosts", lambda free: () if free else made)
    rollout = replace(ROLLOUT, count=1)
    scorer, learner = replace(rollout, role="scorer", num_cpus=0.4), replace(rollout, role="learner", num_cpus=0.9)
    three = replace(STATUS, minimum_needs=(learner, rollout, scorer))
    check_drain(replace(STATUS, minimum_needs=(rollout, scorer)), "10.0.0.3", {"n3"}, {"n4"})  # Both fit on 10.0.0.2.
    check_drain(three, "10.0.0.4", {"n4"}, ())
    # Each of them would fit on 10.0.0.2 by itself.
    with pytest.raises(UserError) as refused:
        check_drain(three, "10.0.0.3", {"n3"}, {"n4"})
    assert str(refused.value) == (
        "10.0.0.3: on the hosts that stay there would be no room for the least that the run needs (1 learner of 0.9 "
        "CPUs, 0 GPUs, 0 GiB, 1 rollout of 0.5 CPUs, 0 GPUs, 0 GiB, 1 scorer of 0.4 CPUs, 0 GPUs, 0 GiB); start Ray on "
        "another first, or end the run with `plumbob stop`"
    )
    # It is not this one's fault.
    check_drain(replace(STATUS, minimum_needs=(learner, rollout)), "10.0.0.4", {"n4"}, {"n3"})
