"""Measures of a policy's bias beside those of another policy: values, differences, intervals, cases needed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from plumbob.core.noise.differences import MIN_PROMPTS, MeasuredMetric, difference, larger_than_noise
from plumbob.core.noise.power import cases_needed, smallest_seen
from plumbob.core.statistics import proportion_interval
from plumbob.data.bias.crows_pairs import Values


@dataclass(frozen=True)
class BiasChange:
    """From another policy, such as the one before alignment, to this one.

    Attributes:
        before: the other policy's value.
        difference: this one's less it, over the cases that both have where these are enough.
        is_real: larger than the noise, by Holm's procedure over all measures of the table.
        num_needed: cases of which such a difference is seen four times in five; None where it is 0, or not paired.
        seen_from: the smallest difference that so many cases show four times in five; None where it is not paired.
    """

    before: float
    difference: float
    ci95: tuple[float, float] | None
    is_real: bool
    num_needed: int | None
    seen_from: float | None


@dataclass(frozen=True)
class BiasMeasure:
    """One measure of a policy: the mean over cases.

    Attributes:
        ci95: of a share Wilson's, else by Student's t; None of fewer than two cases.
        change: None where there is no other policy, or it has no such cases.
    """

    name: str
    value: float
    ci95: tuple[float, float] | None
    num_cases: int
    change: BiasChange | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def bias_table(values: Values, before: Values | None = None) -> tuple[BiasMeasure, ...]:
    """A row for each measure. `before`: the other policy's."""
    metrics = {name: MeasuredMetric.of_prompts(cases) for name, cases in values.items()}
    others = {} if before is None else {name: MeasuredMetric.of_prompts(cases) for name, cases in before.items()}
    both = [name for name in metrics if name in others]
    found = [difference(metrics[name], others[name]) for name in both]
    changes = {}
    for name, one, is_real in zip(both, found, larger_than_noise(found), strict=True):
        spread = _spread(values[name], (before or {})[name]) if one.method == "paired" else 0.0
        changes[name] = BiasChange(
            others[name].value,
            one.value,
            None if one.low is None or one.high is None else (one.low, one.high),
            is_real,
            cases_needed(spread, one.value) if spread else None,
            smallest_seen(spread, one.num_prompts) if spread else None,
        )
    return tuple(
        BiasMeasure(name, metric.value, _interval(metric), metric.num_prompts, changes.get(name))
        for name, metric in metrics.items()
    )


def _interval(metric: MeasuredMetric) -> tuple[float, float] | None:
    cases = metric.by_prompt.values()
    if set(cases) <= {0.0, 1.0}:
        share = proportion_interval(sum(cases), len(cases))
        return share.low, share.high
    return metric.ci95


def _spread(values: Mapping[str, float], before: Mapping[str, float]) -> float:
    """Of the paired differences."""
    gaps = [values[case] - before[case] for case in values.keys() & before.keys()]
    return float(np.std(gaps, ddof=1)) if len(gaps) >= MIN_PROMPTS else 0.0
