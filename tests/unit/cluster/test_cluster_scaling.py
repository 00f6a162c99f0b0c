"""How many rollout workers a run may have, on a real Ray."""

import pytest

from cluster.hosts import living_nodes
from cluster.scaling import check_scale
from configs.errors import UserError

pytestmark = pytest.mark.usefixtures("one_cpu")

ROLLOUT = {
    "role": "rollout",
    "setting": "rollout.num_workers",
    "count": 2,
    "num_cpus": 0.5,
    "num_gpus": 0.0,
    "memory_gib": 0.0,
    "spread": True,
}


def test_what_a_run_may_be_scaled_to() -> None:
    assert check_scale({"rollout": ROLLOUT}, 1, ()) == 2
    # One CPU is free: room for two of half a CPU more.
    assert check_scale({"rollout": ROLLOUT}, 4, ()) == 2
    with pytest.raises(UserError, match=r"--rollout-workers 5: there are 2 now, and for 3 more 0\.5 CPUs are missing"):
        check_scale({"rollout": ROLLOUT}, 5, ())
    with pytest.raises(UserError, match="--rollout-workers 0: expected 1 or more"):
        check_scale({"rollout": ROLLOUT}, 0, ())
    with pytest.raises(UserError, match="this run has no rollout workers now"):
        check_scale({"rollout": None}, 2, ())


def test_hosts_that_will_be_taken_away_have_no_room() -> None:
    with pytest.raises(UserError, match=r"--rollout-workers 3: there are 2 now, and for 1 more there is no host"):
        check_scale({"rollout": ROLLOUT}, 3, living_nodes())


@pytest.mark.parametrize(("number", "setting"), [(1, "min_workers=2"), (4, "max_workers=3")])
def test_what_autoscaling_would_undo_is_refused(number: int, setting: str) -> None:
    status = {"rollout": ROLLOUT, "autoscale": {"min_workers": 2, "max_workers": 3}}
    assert check_scale(status, 3, ()) == 2
    with pytest.raises(UserError, match=rf"--rollout-workers {number}: the run scales by itself within rollout\.auto"):
        check_scale(status, number, ())
    with pytest.raises(UserError, match=rf"rollout\.autoscale\.{setting}; `plumbob stop` it"):
        check_scale(status, number, ())
