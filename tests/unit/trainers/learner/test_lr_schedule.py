import pytest

from plumbob.configs.settings.training import OptimizerSettings
from plumbob.trainers.learner.lr_schedule import learning_rate_scale


def scales(num_steps: int, **settings: object) -> list[float]:
    optimizer = OptimizerSettings(learning_rate=1.0, **settings)  # type: ignore[arg-type]
    return [learning_rate_scale(optimizer, step, num_steps) for step in range(num_steps)]


def test_constant_after_a_warm_up() -> None:
    # round(0.3 x 10) = 3 steps of warm-up at 1/4, 2/4, 3/4: neither 0 nor yet 1.
    found = scales(10, schedule="constant", warmup_fraction=0.3)
    assert found == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1])


def test_linear_to_zero_just_after_the_last_step() -> None:
    assert scales(4, schedule="linear", warmup_fraction=0) == pytest.approx([1, 0.75, 0.5, 0.25])
    # One step of warm-up at 1/2, then 4 steps from 1 towards 0.
    assert scales(5, schedule="linear", warmup_fraction=0.2) == pytest.approx([0.5, 1, 0.75, 0.5, 0.25])


def test_cosine() -> None:
    # (1 + cos(pi k / 4)) / 2 for k = 0..3.
    assert scales(4, schedule="cosine", warmup_fraction=0) == pytest.approx([1, 0.853553, 0.5, 0.146447], abs=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_one_step_is_taken_at_the_full_rate(schedule: str) -> None:
    assert scales(1, schedule=schedule, warmup_fraction=0.05) == [1.0]
