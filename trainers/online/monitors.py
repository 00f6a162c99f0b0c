"""Known failures of reinforcement learning from a reward model, told from the figures of the steps so far.

Pure functions of the run's lines of metrics: a resumed run, which has the same lines, sees the same.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.settings.monitors import (
    CollapseSettings,
    KlMonitorSettings,
    LengthGamingSettings,
    MonitorSettings,
    OverOptimisationSettings,
    SamplerGapSettings,
    StandstillSettings,
)
from plumbob.configs.settings.training import PpoSettings

Steps = Sequence[Mapping[str, float]]
"""The figures of each step of the run, the newest last."""

MIN_RATE_SHARE = 0.1
"""Of the highest learning rate so far: below this a step may well change next to nothing."""

M = TypeVar("M", bound=MonitorSettings)


@dataclass(frozen=True)
class Alarm:
    """A failure that shows.

    Attributes:
        name: the monitor's key in `ppo.monitors`.
        step: 1-based step that it shows at.
        message: what was seen, against which setting.
        stops: whether it is to end the run.
    """

    name: str
    step: int
    message: str
    stops: bool


def alarms(steps: Steps, ppo: PpoSettings) -> list[Alarm]:
    """What shows at the newest step."""
    monitors = ppo.monitors
    found: list[Alarm] = []

    def look(name: str, monitor: M, see: Callable[[Steps, M], str | None]) -> None:
        message = None if monitor.action == "off" or not steps else see(steps, monitor)
        if message is not None:
            found.append(Alarm(name, len(steps), message, monitor.action == "stop"))

    look("kl", monitors.kl, see_kl)
    look("sampler_gap", monitors.sampler_gap, see_sampler_gap)
    look("over_optimisation", monitors.over_optimisation, see_over_optimisation)
    look("collapse", monitors.collapse, see_collapse)
    look("length_gaming", monitors.length_gaming, see_length_gaming)
    look("standstill", monitors.standstill, partial(see_standstill, updates_per_step=ppo.updates_per_step))
    return found


def new_alarms(steps: Steps, ppo: PpoSettings) -> list[Alarm]:
    """Those of the newest step that did not show at the step before: one for each episode."""
    before = {alarm.name for alarm in alarms(steps[:-1], ppo)}
    return [alarm for alarm in alarms(steps, ppo) if alarm.name not in before]


def all_alarms(steps: Steps, ppo: PpoSettings) -> Iterator[Alarm]:
    """One for each episode of the whole run."""
    before: set[str] = set()
    for num_steps in range(1, len(steps) + 1):
        found = alarms(steps[:num_steps], ppo)
        yield from (alarm for alarm in found if alarm.name not in before)
        before = {alarm.name for alarm in found}


def has_stopped(steps: Steps, ppo: PpoSettings) -> bool:
    """Whether the newest step is to be the run's last."""
    return any(alarm.stops for alarm in alarms(steps, ppo))


def monitor_figures(steps: Steps, ppo: PpoSettings) -> dict[str, Any]:
    """What the summary of a whole run says: every episode, and which ended it."""
    found = [{"name": alarm.name, "step": alarm.step, "message": alarm.message} for alarm in all_alarms(steps, ppo)]
    stopping = [alarm for alarm in alarms(steps, ppo) if alarm.stops]
    if not stopping:
        return {"monitors": found, "notes": []}
    why = "; ".join(f"ppo.monitors.{alarm.name}.action=stop: {alarm.message}" for alarm in stopping)
    note = f"stopped after step {len(steps)} of {ppo.num_steps}, whose policy is the result, by {why}"
    return {"monitors": found, "stopped_at_step": len(steps), "notes": [note]}


# -------------------------------------------------------------------------------------------------------- each monitor


def see_kl(steps: Steps, monitor: KlMonitorSettings) -> str | None:
    kl = steps[-1]["kl"]
    return f"KL {kl:.2f} is above ppo.monitors.kl.bound={monitor.bound:g}" if kl > monitor.bound else None


def see_sampler_gap(steps: Steps, monitor: SamplerGapSettings) -> str | None:
    gap = steps[-1]["sampler_gap_fresh"]
    if gap <= monitor.bound:
        return None
    return (
        f"sampler and learner disagree by {gap:.3g} nats a token on average, above "
        f"ppo.monitors.sampler_gap.bound={monitor.bound:g}: what is learnt from was sampled from another policy"
    )


def see_over_optimisation(steps: Steps, monitor: OverOptimisationSettings) -> str | None:
    """The reward's slope is above zero and the second judge's below, each by `num_errors` standard errors."""
    if len(steps) < monitor.window or "judge_reward" not in steps[-1]:
        return None
    reward, judged = (trend(last(steps, name, monitor.window)) for name in ("reward", "judge_reward"))
    if not (reward.is_above(monitor.num_errors) and judged.is_below(monitor.num_errors)):
        return None
    return (
        f"over the last {monitor.window} steps the reward rose by {reward.slope:.3g} a step while the second judge's "
        f"score fell by {-judged.slope:.3g}, both by more than "
        f"ppo.monitors.over_optimisation.num_errors={monitor.num_errors:g} standard errors: "
        f"the policy learns the reward model's mistakes"
    )


def see_collapse(steps: Steps, monitor: CollapseSettings) -> str | None:
    if len(steps) < 2 * monitor.window:
        return None
    entropy, first_entropy = ends(steps, "entropy", monitor.window)
    if entropy < monitor.min_entropy_share * first_entropy:
        return (
            f"entropy fell to {entropy:.3g} nats a token from {first_entropy:.3g}, below "
            f"ppo.monitors.collapse.min_entropy_share={monitor.min_entropy_share:g} of it"
        )
    repeated, first_repeated = ends(steps, "repeated_share", monitor.window)
    if repeated - first_repeated > monitor.max_repeated_rise:
        return (
            f"{repeated:.0%} of the responses stand in their batch more than once, {first_repeated:.0%} in the first "
            f"steps: more than ppo.monitors.collapse.max_repeated_rise={monitor.max_repeated_rise:g} above"
        )
    return None


def see_length_gaming(steps: Steps, monitor: LengthGamingSettings) -> str | None:
    if len(steps) < 2 * monitor.window:
        return None
    tokens, first_tokens = ends(steps, "answer_tokens_mean", monitor.window)
    reward, first_reward = ends(steps, "reward", monitor.window)
    if not (tokens > monitor.max_growth * first_tokens and reward > first_reward):
        return None
    return (
        f"responses grew from {first_tokens:.1f} to {tokens:.1f} tokens while the reward rose from {first_reward:.3g} "
        f"to {reward:.3g}: more than ppo.monitors.length_gaming.max_growth={monitor.max_growth:g} times"
    )


def see_standstill(steps: Steps, monitor: StandstillSettings, updates_per_step: int) -> str | None:
    """No gradient, or no distance to the policy before the step, at every one of the last steps.

    The first of `updates_per_step` optimizer steps is measured before it moves anything: one alone has no distance.
    """
    if len(steps) < monitor.window:
        return None
    rate, highest = (last(steps, "learning_rate", window) for window in (monitor.window, len(steps)))
    if not rate.min() >= MIN_RATE_SHARE * highest.max():
        return None
    bounds = {"policy_grad_norm": monitor.min_grad_norm}
    if updates_per_step > 1:
        bounds["update_kl"] = monitor.min_update_kl
    for name, bound in bounds.items():
        if (last(steps, name, monitor.window) <= bound).all():
            return (
                f"for {monitor.window} steps {name} was at most {bound:g} at a learning rate of {rate.min():.2g} and "
                f"more (ppo.monitors.standstill.min_{name.removeprefix('policy_')}): the policy does not move"
            )
    return None


# -------------------------------------------------------------------------------------------------------------- trends


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
    places = np.arange(len(values)) - (len(values) - 1) / 2
    spread = float((places**2).sum())
    slope = float((places * values).sum()) / spread
    residuals = values - values.mean() - slope * places
    return Trend(slope, math.sqrt(float((residuals**2).sum()) / (len(values) - 2) / spread))


def last(steps: Steps, name: str, window: int) -> NDArray[np.float64]:
    """A figure at the last `window` steps; NaN, which no comparison holds for, where a step has none."""
    return np.array([step.get(name, math.nan) for step in steps[-window:]])


def ends(steps: Steps, name: str, window: int) -> tuple[float, float]:
    """Means of a figure over the last and over the first `window` steps."""
    return float(last(steps, name, window).mean()), float(last(steps[:window], name, window).mean())
