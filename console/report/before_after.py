"""What a run changed: each metric before and after, and the change with its 95% interval where one is known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plumbob.console.metric_names import HELDOUT
from plumbob.console.report.html_page import html_table
from plumbob.console.tables import interval, number, percent
from plumbob.core.outside import from_outside
from plumbob.core.statistics import Interval, mean_interval
from plumbob.rollout.journal import JOURNAL_FOLDER, read_step
from plumbob.rollout.journal_files import step_files
from plumbob.trainers.metrics.step_record import StepRecord

HEADING = ("stage", "metric", "before", "after", "change, 95%")
BASELINE = "sft"
"""The stage of a pipeline that the aligned policies began from."""

Row = list[str]


def before_after_section(
    summary: Mapping[str, Any], journals: Mapping[str, Path], records: Sequence[StepRecord]
) -> str:
    """A table of all that the files know both sides of.

    Args:
        journals: stage -> its folder, of those that have rollouts.
    """
    stages = summary.get("stages", {})
    rows = [row for name, stage in stages.items() for row in _of_summary(str(name), stage, stages.get(BASELINE, {}))]
    rows += [row for name, folder in journals.items() for row in _of_journal(name, folder)]
    rows += _of_held_out(records)
    return f"<h2>Before and after</h2>{html_table(HEADING, rows)}" if rows else ""


def _of_summary(name: str, stage: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[Row]:
    rows = []
    for metric, title in (("gold", "gold score"), ("reward", "reward")):
        key = "gold_score" if metric == "gold" else metric
        known = interval(stage.get(f"{metric}_gain_ci95"), number)
        if key in stage and key in baseline and name != BASELINE:
            gain = number(stage[key] - baseline[key])
            rows.append([name, title, number(baseline[key]), number(stage[key]), f"{gain} {known}".strip()])
    if "win_rate" in stage:
        # As good as what it began from wins half of the prompts: a tie is half a win.
        bounds = [end - 0.5 for end in stage.get("win_rate_ci95", ())]
        change = f"{percent(stage['win_rate'] - 0.5)} {interval(bounds, percent)}".strip()
        rows.append([name, "prompts won against what it began from", "50.0%", percent(stage["win_rate"]), change])
    retained = stage.get("retention", {})
    if {"perplexity_before", "perplexity_after"} <= set(retained):
        before, after = retained["perplexity_before"], retained["perplexity_after"]
        growth = f"x {number(retained.get('growth', after / before))}"
        rows.append([name, "perplexity of text to retain", number(before), number(after), growth])
    return rows


def _of_journal(name: str, folder: Path) -> list[Row]:
    """The reward of the first step's responses and of the last one's, over prompts: these are others, so that the
    interval of the change is that of two independent means."""
    steps = step_files(folder / JOURNAL_FOLDER)
    if len(steps) < 2:
        return []
    first, last = (_reward_of(path) for path in (steps[0], steps[-1]))
    if first is None or last is None:
        return []
    half = float(np.hypot(first.high - first.mean, last.high - last.mean))
    change = last.mean - first.mean
    shown = f"{number(change)} {interval([change - half, change + half], number)}"
    return [[name, "reward of its responses", _with_interval(first), _with_interval(last), shown]]


def _reward_of(path: Path) -> Interval | None:
    """Over prompts; None where there is one alone."""
    with from_outside(f"{path}: expected a journal of rollouts", "put the file back, or delete it"):
        groups: dict[str, list[float]] = {}
        for row in read_step(path):
            groups.setdefault(row.group_id, []).append(row.score)
        means = [float(np.mean(scores)) for scores in groups.values()]
        return mean_interval(means) if len(means) > 1 else None


def _with_interval(value: Interval) -> str:
    return f"{number(value.mean)} {interval(value.ci95, number)}"


def _of_held_out(records: Sequence[StepRecord]) -> list[Row]:
    """The loss on held-out records, at the first and the last step that measured it."""
    rows = []
    for stage in dict.fromkeys(record.stage for record in records):
        name = f"{HELDOUT}loss"
        measured = [record.metrics[name] for record in records if record.stage == stage and name in record.metrics]
        if len(measured) > 1:
            before, after = measured[0], measured[-1]
            rows.append([stage, "held-out loss", number(before), number(after), number(after - before)])
    return rows
