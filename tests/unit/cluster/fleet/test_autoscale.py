"""Who waited for whom, and how many rollout workers that makes."""

import pytest

from plumbob.cluster.fleet.autoscale import Autoscaler, IdleShares, desired_workers, idle_of
from plumbob.cluster.run_status import WorkerStatus
from plumbob.configs.settings.workers import AutoscaleSettings
from plumbob.trainers.metrics.step_record import StepRecord

SETTINGS = AutoscaleSettings(min_workers=1, max_workers=3, margin=0.2, patience=2)
STARVED, FED, BALANCED = IdleShares(0.7, 0.3), IdleShares(0.3, 0.7), IdleShares(0.55, 0.45)


def record(sample: float, score: float, learn: float, sampler_idle: float) -> StepRecord:
    return StepRecord("ppo", 1, 9, {"sampler_idle_s": sampler_idle}, {"sample": sample, "score": score, "learn": learn})


def all_of(size: int) -> list[WorkerStatus]:
    """Workers that have written responses."""
    return [WorkerStatus(f"rollout-{number}", "10.0.0.1", "idle", 1) for number in range(size)]


def test_the_shares_of_a_step() -> None:
    # Of 10 s the learner waits 5 + 1; the samplers wait while it learns, and while responses are scored.
    assert idle_of(record(5.0, 1.0, 4.0, 5.0)) == (0.6, 0.5)
    assert idle_of(StepRecord("sft", 1, 9, {}, {"learn": 1.0})) is None


@pytest.mark.parametrize(
    ("size", "steps", "wanted"),
    [
        (1, [STARVED, STARVED], 2),
        (1, [STARVED], 1),  # Once is chance.
        (1, [BALANCED, STARVED], 1),
        (2, [FED, STARVED, STARVED], 3),  # The last two count.
        (3, [STARVED, STARVED], 3),  # No more than the maximum,
        (3, [FED, FED], 2),
        (1, [FED, FED], 1),  # nor fewer than the minimum.
        (2, [BALANCED, BALANCED], 2),
        (5, [BALANCED], 3),  # Whatever people asked for.
    ],
)
def test_the_number_follows_who_waits(size: int, steps: list[IdleShares], wanted: int) -> None:
    assert desired_workers(size, steps, SETTINGS) == wanted


def test_after_a_change_the_steps_are_counted_anew() -> None:
    scaling = Autoscaler(SETTINGS)
    starved = record(7.0, 0.0, 3.0, 3.0)

    def workers_after_step(size: int) -> int:
        return scaling.workers_after_step(starved, size, all_of(size))

    # Two steps of waiting are one worker more; the new number has to prove itself for two more.
    assert [workers_after_step(size) for size in (1, 1, 2, 2, 3)] == [1, 2, 2, 3, 3]


def test_while_a_worker_boots_no_other_is_asked_for() -> None:
    scaling = Autoscaler(SETTINGS)
    starved, fed = record(7.0, 0.0, 3.0, 3.0), record(3.0, 0.0, 7.0, 7.0)
    booting = [*all_of(1), WorkerStatus("rollout-1", "10.0.0.1", "starting its engine", 0)]
    # Before it is started, and while it boots: steps shorter than a boot.
    seen = (all_of(1), booting, booting, booting)
    assert {scaling.workers_after_step(starved, 2, workers) for workers in seen} == {2}
    assert [scaling.workers_after_step(starved, 2, all_of(2)) for _ in range(2)] == [2, 3]
    # With fewer than are wanted the samplers waited already.
    assert [scaling.workers_after_step(fed, 3, booting) for _ in range(2)] == [3, 2]
