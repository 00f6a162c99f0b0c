"""Known failures of reinforcement learning from a reward model, told from the metrics of the steps so far.

What is seen hangs on the run's lines of metrics alone: a resumed run, which has the same lines, sees the same.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.settings.metrics.monitors import (
    CollapseSettings,
    KlMonitorSettings,
    LengthGamingSettings,
    MonitorSettings,
    OverOptimisationSettings,
    SamplerGapSettings,
    StandstillSettings,
)
from plumbob.configs.settings.training import OnlineSettings
from plumbob.trainers.metrics.stage_result import StageResult
from plumbob.trainers.online.step_metrics import StepMetrics

MIN_RATE_SHARE = 0.1
"""Of the highest learning rate so far: below this a step may well change next to nothing."""

M = TypeVar("M", bound=MonitorSettings)


@dataclass(frozen=True)
class Alarm:
    """A failure that shows.

    Attributes:
        name: the monitor's key in `online.monitors`.
        step: 1-based step that it shows at.
        message: what was seen, against which setting.
        stops: whether it is to end the run.
    """

    name: str
    step: int
    message: str
    stops: bool


class Monitors:
    """Looks at each step as it ends; what it keeps and costs does not grow with the number of steps.

    Attributes:
        num_steps: how many were seen.
        alarms: what shows at the newest step.
        new_alarms: those that did not show at the step before: one for each episode.
    """

    def __init__(self, online: OnlineSettings) -> None:
        self._online = online
        watched = online.monitors
        windows = (watched.over_optimisation, watched.collapse, watched.length_gaming, watched.standstill)
        self._steps = StepHistory(max(monitor.window for monitor in windows))
        self.alarms: tuple[Alarm, ...] = ()
        self.new_alarms: tuple[Alarm, ...] = ()

    @property
    def num_steps(self) -> int:
        return len(self._steps)

    @property
    def has_stopped(self) -> bool:
        """Whether the newest step is to be the run's last."""
        return any(alarm.stops for alarm in self.alarms)

    def observe(self, step: StepMetrics) -> None:
        before = {alarm.name for alarm in self.alarms}
        self._steps.append(step)
        self.alarms = tuple(alarms(self._steps, self._online))
        self.new_alarms = tuple(alarm for alarm in self.alarms if alarm.name not in before)


def alarms(steps: "StepHistory", online: OnlineSettings) -> list[Alarm]:
    """What shows at the newest step."""
    monitors = online.monitors
    found: list[Alarm] = []

    def run_monitor(name: str, monitor: M, check: Callable[[StepHistory, M], str | None]) -> None:
        message = None if monitor.action == "off" else check(steps, monitor)
        if message is not None:
            found.append(Alarm(name, len(steps), message, monitor.action == "stop"))

    run_monitor("kl", monitors.kl, check_kl)
    run_monitor("sampler_gap", monitors.sampler_gap, check_sampler_gap)
    run_monitor("over_optimisation", monitors.over_optimisation, check_over_optimisation)
    run_monitor("collapse", monitors.collapse, check_collapse)
    run_monitor("length_gaming", monitors.length_gaming, check_length_gaming)
    run_monitor("standstill", monitors.standstill, partial(check_standstill, updates_per_step=online.updates_per_step))
    return found


def monitor_result(steps: Iterable[StepMetrics], online: OnlineSettings) -> StageResult:
    """Of a whole run: every episode, and which ended it."""
    monitors, found = Monitors(online), []
    for step in steps:
        monitors.observe(step)
        found += [{"name": new.name, "step": new.step, "message": new.message} for new in monitors.new_alarms]
    stopping = [alarm for alarm in monitors.alarms if alarm.stops]
    if not stopping:
        return StageResult({"monitors": found}, ())
    why = "; ".join(f"online.monitors.{alarm.name}.action=stop: {alarm.message}" for alarm in stopping)
    note = f"stopped after step {monitors.num_steps} of {online.num_steps}, whose policy is the result, by {why}"
    return StageResult({"monitors": found, "stopped_at_step": monitors.num_steps}, (note,))


# -------------------------------------------------------------------------------------------------------- each monitor


def check_kl(steps: "StepHistory", monitor: KlMonitorSettings) -> str | None:
    kl = steps.newest.experience.kl_mean
    return f"KL {kl:.2f} is above online.monitors.kl.bound={monitor.bound:g}" if kl > monitor.bound else None


def check_sampler_gap(steps: "StepHistory", monitor: SamplerGapSettings) -> str | None:
    gap = steps.newest.sampler_gap_fresh
    if gap <= monitor.bound:
        return None
    return (
        f"sampler and learner disagree by {gap:.3g} nats a token on average, above "
        f"online.monitors.sampler_gap.bound={monitor.bound:g}: what is learnt from was sampled from another policy"
    )


def check_over_optimisation(steps: "StepHistory", monitor: OverOptimisationSettings) -> str | None:
    """The reward's slope is above zero and the gold reward's below, each by `num_errors` standard errors."""
    if len(steps) < monitor.window or steps.newest.gold_reward is None:
        return None
    reward, gold_reward_trend = (trend(steps.last(name, monitor.window)) for name in (mean_reward, gold_reward))
    if not (reward.is_above(monitor.num_errors) and gold_reward_trend.is_below(monitor.num_errors)):
        return None
    return (
        f"over the last {monitor.window} steps the reward rose by {reward.slope:.3g} a step while the gold "
        f"reward fell by {-gold_reward_trend.slope:.3g}, both by more than "
        f"online.monitors.over_optimisation.num_errors={monitor.num_errors:g} standard errors: "
        f"the policy learns the reward model's errors"
    )


def check_collapse(steps: "StepHistory", monitor: CollapseSettings) -> str | None:
    if len(steps) < 2 * monitor.window:
        return None
    entropy, first_entropy = steps.means_at_both_ends(lambda step: step.entropy, monitor.window)
    if entropy < monitor.min_entropy_share * first_entropy:
        return (
            f"entropy fell to {entropy:.3g} nats a token from {first_entropy:.3g}, below "
            f"online.monitors.collapse.min_entropy_share={monitor.min_entropy_share:g} of it"
        )
    repeated, first_repeated = steps.means_at_both_ends(lambda step: step.repeated_share, monitor.window)
    if repeated - first_repeated > monitor.max_repeated_rise:
        return (
            f"{repeated:.0%} of the responses stand in their batch more than once, {first_repeated:.0%} in the first "
            f"steps: more than online.monitors.collapse.max_repeated_rise={monitor.max_repeated_rise:g} above"
        )
    return None


def check_length_gaming(steps: "StepHistory", monitor: LengthGamingSettings) -> str | None:
    if len(steps) < 2 * monitor.window:
        return None
    tokens, first_tokens = steps.means_at_both_ends(lambda step: step.experience.response_tokens_mean, monitor.window)
    reward, first_reward = steps.means_at_both_ends(mean_reward, monitor.window)
    if not (tokens > monitor.max_growth * first_tokens and reward > first_reward):
        return None
    return (
        f"responses grew from {first_tokens:.1f} to {tokens:.1f} tokens while the reward rose from {first_reward:.3g} "
        f"to {reward:.3g}: more than online.monitors.length_gaming.max_growth={monitor.max_growth:g} times"
    )


def check_standstill(steps: "StepHistory", monitor: StandstillSettings, updates_per_step: int) -> str | None:
    """No gradient, or no distance to the policy before the step, at every one of the last steps.

    The first of `updates_per_step` optimizer steps is measured before it moves anything: one alone has no distance.
    """
    if len(steps) < monitor.window:
        return None
    rate = steps.last(lambda step: step.learning_rate, monitor.window)
    if not rate.min() >= MIN_RATE_SHARE * steps.highest_rate:
        return None
    norms = steps.last(lambda step: step.policy_grad_norm, monitor.window)
    bounds = {"policy_grad_norm": (norms, monitor.min_grad_norm)}
    if updates_per_step > 1:
        distances = steps.last(lambda step: step.update_kl, monitor.window)
        bounds["update_kl"] = (distances, monitor.min_update_kl)
    for name, (values, bound) in bounds.items():
        if (values <= bound).all():
            return (
                f"for {monitor.window} steps {name} was at most {bound:g} at a learning rate of {rate.min():.2g} and "
                f"more (online.monitors.standstill.min_{name.removeprefix('policy_')}): the policy does not move"
            )
    return None


# ----------------------------------------------------------------------------------------------------- steps and trends

Value = Callable[[StepMetrics], float | None]


class StepHistory:
    """Of the steps so far, what any monitor looks at: the first ones, the newest, and the highest learning rate.

    Args:
        window: the most steps, first or newest, that are looked at at once.
    """

    def __init__(self, window: int) -> None:
        self._window, self._num_steps = window, 0
        self._first: list[StepMetrics] = []
        self._newest: deque[StepMetrics] = deque(maxlen=window)
        self.highest_rate = 0.0

    def __len__(self) -> int:
        return self._num_steps

    def append(self, step: StepMetrics) -> None:
        self._num_steps += 1
        self._newest.append(step)
        if len(self._first) < self._window:
            self._first.append(step)
        self.highest_rate = float(np.maximum(self.highest_rate, step.learning_rate))

    @property
    def newest(self) -> StepMetrics:
        return self._newest[-1]

    def last(self, value: Value, window: int) -> NDArray[np.float64]:
        """A metric at the last `window` steps; NaN, which no comparison holds for, where a step has none."""
        return _values(list(self._newest)[-window:], value)

    def means_at_both_ends(self, value: Value, window: int) -> tuple[float, float]:
        """Means of a metric over the last and over the first `window` steps."""
        return float(self.last(value, window).mean()), float(_values(self._first[:window], value).mean())


def _values(steps: Sequence[StepMetrics], value: Value) -> NDArray[np.float64]:
    found = (value(step) for step in steps)
    return np.array([math.nan if one is None else one for one in found], np.float64)


def mean_reward(step: StepMetrics) -> float | None:
    return step.experience.score_mean


def gold_reward(step: StepMetrics) -> float | None:
    return step.gold_reward


@dataclass(frozen=True)
class Trend:
    """A slope per step with its standard error."""

    slope: float
    error: float

    def is_above(self, num_errors: float) -> bool:
        return self.slope > 0 and self.slope > num_errors * self.error

    def is_below(self, num_errors: float) -> bool:
        return Trend(-self.slope, self.error).is_above(num_errors)


def trend(values: NDArray[np.float64]) -> Trend:
    """Ordinary least squares over steps 0, 1, ...: slope, and its standard error by the residuals, of n - 2 degrees."""
    steps = np.arange(len(values)) - (len(values) - 1) / 2
    spread = float((steps**2).sum())
    slope = float((steps * values).sum()) / spread
    residuals = values - values.mean() - slope * steps
    return Trend(slope, math.sqrt(float((residuals**2).sum()) / (len(values) - 2) / spread))
