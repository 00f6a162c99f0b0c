"""The number of rollout workers moves by itself and by people's wishes, while workers boot and while there are none."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plumbob.cluster.calls import wait_until
from plumbob.cluster.fleet.pool import Pool
from plumbob.cluster.session import Session
from plumbob.cluster.worker_groups import SamplerGroup
from plumbob.configs.settings.workers import AutoscaleSettings, ClusterSettings, RolloutSettings, TransformersEngine
from plumbob.core.errors import UserError
from plumbob.driver import steering
from plumbob.driver.run_control import controlled_run
from plumbob.rollout.samplers.sampler import SamplerSpec
from plumbob.trainers.metrics.step_record import StepRecord
from tests.support.opened_models import policy_ref
from tests.support.recording_listener import Watching
from tests.support.small_run import Stages
from tests.support.tiny_policy import make_requests, write_policy

pytestmark = pytest.mark.slow

BOUND_S = 240.0
AUTOSCALE = AutoscaleSettings(max_workers=3, patience=2)
ROLLOUT = RolloutSettings(engine=TransformersEngine(), num_cpus=0.25, chunk_size=1, autoscale=AUTOSCALE)
STARVED = StepRecord("ppo", 1, 9, {"sampler_idle_s": 1.0}, {"sample": 9.0, "learn": 1.0})
"""A step in which the learner waited for responses."""


@pytest.fixture
def session(stage: Stages, tmp_path: Path) -> Iterator[Session]:
    stage.close()
    with Session(ClusterSettings(address=stage.address), tmp_path, Watching()) as session:
        yield session


def test_the_number_of_rollout_workers_moves(session: Session, tmp_path: Path) -> None:
    spec = SamplerSpec(policy_ref(write_policy(tmp_path / "policy")), "", TransformersEngine(), 1.0, 4, 0)
    watching = Watching()
    with controlled_run(session, "scaled", (), tmp_path, watching) as control:

        def size_after(num_steps: int) -> int:
            for _ in range(num_steps):
                control.listener.stepped(STARVED)
            return rollout_pool(session).target_size

        group = session.start_samplers(spec, ROLLOUT)
        assert all_have_answered(session, group, 1)
        assert size_after(2) == 2
        # The second boots: what it takes makes no third.
        assert size_after(5) == 2
        assert all_have_answered(session, group, 2)
        assert size_after(1) == 2 and size_after(1) == 3
        rule = "rollout.autoscale: {} rollout workers become {}"
        assert [message for _, message in watching.notes] == [rule.format(1, 2), rule.format(2, 3)]

        reports_twice(session)
        with pytest.raises(UserError, match=r"--rollout-workers 4: .* within rollout\.autoscale\.max_workers=3; `plum"):
            steering.scale("scaled", 4, "auto")
        # Between two stages there are no rollout workers: what was asked for just then waits for the next.
        session._pools.close(["rollout"])
        assert steering.scale("scaled", 2, "auto") == 3
        reports_twice(session)
        session.start_samplers(spec, ROLLOUT)
        session.poll_control()
        assert rollout_pool(session).target_size == 2


def rollout_pool(session: Session) -> Pool:
    entry = session._pools.get("rollout")
    assert entry is not None
    return entry.pool


def all_have_answered(session: Session, group: SamplerGroup, size: int) -> bool:
    """Sample until so many workers have taken part."""
    requests = make_requests(2 * size)

    def have() -> bool:
        assert len(group.sample(requests)) == len(requests)
        return sum(bool(row.num_done) for row in rollout_pool(session).status()) == size

    return wait_until(have, BOUND_S)


def reports_twice(session: Session) -> None:
    """The second report is sent when the response to the first has been heard."""
    for _ in range(2):
        now = time.time()

        def shows(now: float = now) -> bool:
            session.poll_control()
            status = steering.status("scaled", "auto").status
            return status is not None and status.time > now

        assert wait_until(shows, BOUND_S)
