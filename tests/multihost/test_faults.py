"""A slice of the fault campaign: a run that is struck again and again ends as one that nothing happened to."""

from pathlib import Path

from tests.multihost.faults.campaign import campaign
from tests.multihost.faults.catalogue import Setting
from tests.multihost.faults.system_under_test import Fault
from tests.multihost.hosts import missing
from tests.support.host_requirements import cannot

SLICE = (
    Fault("worker killed", "rollout", "sample"),
    Fault("link cut for long", "learner", "logprobs"),
    Fault("worker killed", "scorer", "score"),
    Fault("driver killed", "driver", "rename"),
    Fault("out of memory", "learner", "learn"),
    Fault("disk full", "disk", "commit"),
    Fault("raylet killed", "rollout", "publish"),
    Fault("checkpoint damaged", "byte flipped", "sample"),
    Fault("worker killed", "learner", "learn"),
)


def test_a_run_that_is_struck_again_and_again_ends_as_one_that_is_not(tmp_path: Path) -> None:
    lacking = missing()
    if lacking:
        cannot(lacking)
    with campaign(seed=0, result=tmp_path / "faults.json") as played_on:
        played_on.play(Setting("slice", {}, 0, SLICE), len(SLICE))
    assert played_on.played.failures == []
    assert [outcome.fault for outcome in played_on.played.outcomes] == list(SLICE)
