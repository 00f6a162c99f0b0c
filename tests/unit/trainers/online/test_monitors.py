"""The monitors of PPO on series of metrics made by hand."""

import pickle
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from plumbob.configs.settings.metrics.monitors import (
    CollapseSettings,
    KlMonitorSettings,
    LengthGamingSettings,
    MonitoringSettings,
    MonitorSettings,
    OverOptimisationSettings,
    SamplerGapSettings,
    StandstillSettings,
)
from plumbob.configs.settings.training import OnlineSettings
from plumbob.trainers.online.monitors import Alarm, Monitors, Trend, monitor_result, trend
from plumbob.trainers.online.step_metrics import StepMetrics

QUIET = {
    **{"kl": 1.0, "reward": 0.0, "gold_reward": 0.0, "entropy": 2.0, "repeated_share": 0.1},
    **{
        "sampler_gap_fresh": 1e-6,
        "answer_tokens_mean": 10.0,
        "learning_rate": 1e-3,
        "policy_grad_norm": 0.5,
        "update_kl": 1e-4,
    },
}


def steps(num_steps: int, **series: list[float]) -> list[StepMetrics]:
    """Steps on which nothing is wrong, but for the series given, by their names on disk."""
    lines = [QUIET | {name: values[step] for name, values in series.items()} for step in range(num_steps)]
    return [StepMetrics.from_disk(line) for line in lines]


def seen(found: Sequence[StepMetrics], online: OnlineSettings) -> Monitors:
    monitors = Monitors(online)
    for step in found:
        monitors.observe(step)
    return monitors


def alarms(found: Sequence[StepMetrics], online: OnlineSettings) -> list[Alarm]:
    """What shows at the last step."""
    return list(seen(found, online).alarms)


def has_stopped(found: Sequence[StepMetrics], online: OnlineSettings) -> bool:
    return seen(found, online).has_stopped


def episodes(found: Sequence[StepMetrics], online: OnlineSettings) -> list[Alarm]:
    monitors, alarms = Monitors(online), []
    for step in found:
        monitors.observe(step)
        alarms += monitors.new_alarms
    return alarms


def settings(**monitors: MonitorSettings) -> OnlineSettings:
    """Two optimizer steps a step: 2 epochs of 32 samples in minibatches of 32."""
    return OnlineSettings(num_epochs=2, monitors=MonitoringSettings(**monitors))  # type: ignore[arg-type]


def names(found: Sequence[StepMetrics], online: OnlineSettings) -> list[tuple[str, int]]:
    return [(alarm.name, alarm.step) for alarm in episodes(found, online)]


def test_the_slope_and_its_standard_error_are_those_of_least_squares() -> None:
    # Places -1.5, -0.5, 0.5, 1.5 with a sum of squares of 5; mean 2.5. Slope (-1.5 - 0.5 * 3 + 0.5 * 2 + 1.5 * 4) / 5 =
    # 4 / 5. Fitted 1.3, 2.1, 2.9, 3.7: residuals -0.3, 0.9, -0.9, 0.3, squares sum to 1.8, over 4 - 2 degrees 0.9.
    found = trend(np.array([1.0, 3.0, 2.0, 4.0]))
    assert found.slope == pytest.approx(0.8)
    assert found.error == pytest.approx((0.9 / 5) ** 0.5)
    # 0.8 / 0.4243 = 1.886 standard errors.
    assert found.is_above(1.88) and not found.is_above(1.89) and not found.is_below(0.0)
    assert Trend(-0.8, found.error).is_below(1.88) and not Trend(-0.8, found.error).is_below(1.89)
    assert not Trend(0.0, 0.0).is_above(2.0) and not Trend(0.0, 0.0).is_below(0.0)


def test_nothing_shows_where_nothing_is_wrong() -> None:
    assert names(steps(50), settings()) == []
    assert alarms([], settings()) == []


def test_a_sampler_of_another_policy_is_told_and_may_end_the_run() -> None:
    # 0.05 is allowed, by default.
    found = steps(4, sampler_gap_fresh=[0.01, 0.05, 0.051, 0.01])
    assert names(found, settings()) == [("sampler_gap", 3)]
    (alarm,) = alarms(found[:3], settings())
    assert "disagree by 0.051 nats a token" in alarm.message
    stopping = settings(sampler_gap=SamplerGapSettings(action="stop"))
    assert has_stopped(found[:3], stopping) and not has_stopped(found[:2], stopping)
    assert names(found, settings(sampler_gap=SamplerGapSettings(action="off"))) == []


def test_kl_says_so_once_for_each_episode() -> None:
    kl = [4.0, 6.0, 7.0, 5.0, 5.5]
    online = settings(kl=KlMonitorSettings(bound=5.0))
    found = episodes(steps(5, kl=kl), online)
    # Above 5 from step 2 to 3, not at 4, where it is 5, and again at 5.
    assert [(alarm.name, alarm.step, alarm.stops) for alarm in found] == [("kl", 2, False), ("kl", 5, False)]
    assert found[0].message == "KL 6.00 is above online.monitors.kl.bound=5"
    assert [alarm.name for alarm in alarms(steps(3, kl=kl), online)] == ["kl"]
    assert seen(steps(3, kl=kl), online).new_alarms == ()


def test_an_action_may_stop_the_run_or_look_away() -> None:
    high = steps(1, kl=[30.0])
    assert [alarm.stops for alarm in alarms(high, settings(kl=KlMonitorSettings(action="stop")))] == [True]
    assert alarms(high, settings(kl=KlMonitorSettings(action="off"))) == []


def test_over_optimisation_is_reward_up_and_gold_reward_down() -> None:
    # Over steps 1 to 4 the slopes are 0.8 and -0.8 with the standard error worked out above: 1.886 of them.
    up, down = [1.0, 3.0, 2.0, 4.0], [4.0, 2.0, 3.0, 1.0]
    online = settings(over_optimisation=OverOptimisationSettings(window=4, num_errors=1.88))
    assert names(steps(4, reward=up, gold_reward=down), online) == [("over_optimisation", 4)]
    (alarm,) = alarms(steps(4, reward=up, gold_reward=down), online)
    assert "rose by 0.8 a step" in alarm.message and "fell by 0.8" in alarm.message
    for reward, judged in ((up, up), (down, down), (down, up), (up, [2.0] * 4)):
        assert alarms(steps(4, reward=reward, gold_reward=judged), online) == []
    strict = settings(over_optimisation=OverOptimisationSettings(window=4, num_errors=1.89))
    assert alarms(steps(4, reward=up, gold_reward=down), strict) == []
    # One step fewer than the window, or no gold reward: nothing is known.
    assert alarms(steps(3, reward=up, gold_reward=down), online) == []
    alone = [replace(step, gold_reward=None) for step in steps(4, reward=up)]
    assert alarms(alone, online) == []


def test_over_optimisation_is_of_the_last_steps_alone() -> None:
    online = settings(over_optimisation=OverOptimisationSettings(window=4, num_errors=1.88))
    # Before the window the gold reward rose steeply and the reward fell; in it they are as above.
    reward, judged = [90.0, 60.0, 30.0, 0.0, 1.0, 3.0, 2.0, 4.0], [0.0, 30.0, 60.0, 90.0, 4.0, 2.0, 3.0, 1.0]
    assert [alarm.name for alarm in alarms(steps(8, reward=reward, gold_reward=judged), online)] == [
        "over_optimisation"
    ]


def test_collapse_is_entropy_far_below_the_first_steps() -> None:
    online = settings(collapse=CollapseSettings(window=3, min_entropy_share=0.5))
    # First three: mean 3. Last three of six: 1.5, not below half; of seven: (2 + 1.5 + 0.9) / 3 = 1.467.
    entropy = [2.0, 3.0, 4.0, 1.0, 2.0, 1.5, 0.9]
    assert names(steps(7, entropy=entropy), online) == [("collapse", 7)]


def test_collapse_is_responses_that_repeat_each_other() -> None:
    online = settings(collapse=CollapseSettings(window=3, max_repeated_rise=0.25))
    # First three: mean 0.1. Last three of six: (0.1 + 0.4 + 0.4) / 3 = 0.3, which is 0.2 more; of seven: 0.4.
    repeated = [0.0, 0.1, 0.2, 0.1, 0.4, 0.4, 0.4]
    assert names(steps(7, repeated_share=repeated), online) == [("collapse", 7)]


def test_length_gaming_is_length_and_reward_together() -> None:
    online = settings(length_gaming=LengthGamingSettings(window=3, max_growth=1.5))
    # From a mean of 10 to 15 at step 6, which is not above 1.5 times, and to 16 at step 7.
    tokens = [9.0, 10.0, 11.0, 14.0, 15.0, 16.0, 17.0]
    assert names(steps(7, answer_tokens_mean=tokens, reward=[0, 0, 0, 1, 1, 1, 1]), online) == [("length_gaming", 7)]
    assert names(steps(7, answer_tokens_mean=tokens, reward=[0, 0, 0, -1, -1, -1, -1]), online) == []


@pytest.mark.parametrize("name", ["policy_grad_norm", "update_kl"])
def test_standstill_is_no_gradient_or_no_distance(name: str) -> None:
    online = settings(standstill=StandstillSettings(window=3))
    moving = QUIET[name]
    assert names(steps(5, **{name: [moving, 0.0, 0.0, 0.0, moving]}), online) == [("standstill", 4)]
    assert names(steps(5, **{name: [0.0, 0.0, moving, 0.0, 0.0]}), online) == []
    # A learning rate below a tenth of the highest, as at the end of a schedule, excuses it.
    rates = [1.0, 0.5, 0.09, 0.0, 0.0]
    assert names(steps(5, **{name: [moving, 0.0, 0.0, 0.0, 0.0], "learning_rate": rates}), online) == []


def test_a_single_optimizer_step_has_no_distance_to_speak_of() -> None:
    still = steps(5, update_kl=[0.0] * 5)
    monitors = MonitoringSettings(standstill=StandstillSettings(window=3))
    assert alarms(still, OnlineSettings(num_epochs=1, monitors=monitors)) == []
    # 32 prompts in minibatches of 16 are two.
    assert [alarm.name for alarm in alarms(still, OnlineSettings(minibatch_size=16, monitors=monitors))] == [
        "standstill"
    ]


def test_the_summary_has_every_episode_and_says_what_stopped_the_run() -> None:
    online = settings(kl=KlMonitorSettings(bound=5.0, action="stop"), length_gaming=LengthGamingSettings(action="off"))
    kl = [4.0, 6.0]
    assert not has_stopped(steps(1, kl=kl), online) and has_stopped(steps(2, kl=kl), online)
    found = monitor_result(steps(2, kl=kl), online).as_dict()
    message = "KL 6.00 is above online.monitors.kl.bound=5"
    assert found["monitors"] == [{"name": "kl", "step": 2, "message": message}]
    assert found["stopped_at_step"] == 2
    (note,) = found["notes"]
    assert "after step 2 of 50" in note and "online.monitors.kl.action=stop" in note and message in note
    # With a warning alone the run continues.
    assert monitor_result(steps(2, kl=kl), settings(kl=KlMonitorSettings(bound=5.0))).as_dict() == {
        "monitors": [{"name": "kl", "step": 2, "message": message}],
        "notes": [],
    }


def cost_of_a_step(num_steps: int) -> tuple[int, int]:
    """Bytes that the monitors keep after so many steps, and the calls that one more costs."""
    online, calls = settings(), 0
    monitors = Monitors(online)
    quiet = steps(1)[0]
    for _ in range(num_steps):
        monitors.observe(quiet)

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        monitors.observe(quiet)
        assert not monitors.has_stopped
    finally:
        sys.setprofile(None)
    return len(pickle.dumps(vars(monitors))), calls


def test_neither_memory_nor_work_grows_with_the_number_of_steps() -> None:
    (few, calls), (many, calls_of_many) = cost_of_a_step(500), cost_of_a_step(20_000)
    assert many - few < 10 and calls_of_many == calls
