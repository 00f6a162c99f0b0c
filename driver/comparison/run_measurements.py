"""What is known of a run's metrics, as far as two runs can be told apart by them (`measurements`)."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from plumbob.core.noise.differences import MeasuredMetric
from plumbob.core.outside import from_outside
from plumbob.core.statistics import Z95
from plumbob.driver.run_folder.folder import summary_of_finished
from plumbob.rollout.journal import JOURNAL_FOLDER, step_files

INTERVAL = "_ci95"
"""Behind the name of a metric: its 95% interval."""

ALONE = (
    *("heldout_loss", "heldout_accuracy", "accuracy", "gold_score", "reward", "reward_gain", "gold_gain", "win_rate"),
    *("kl", "answer_tokens", "calibration_error", "train_kl", "teacher_kl", "perplexity"),
)
"""Metrics of a stage that are worth comparing without an interval too."""

OFFLINE = frozenset({"pretrain", "pretrain-encoder", "sft", "reward", "dpo", "kto", "eval", "data"})
"""Stages that are called so in every run; one of policy gradients is called as its algorithm, `ONLINE` here."""

ONLINE = "online"

NEWEST_SHARE = 0.1
"""Of the steps of a journal, whose responses are compared: the newest, one at least."""


def measurements(folder: Path) -> dict[str, MeasuredMetric]:
    """Metric -> what is known of it; the stage stands before it where the run has several.

    The reward of the newest steps is by prompt, so that runs that learnt on the same prompts are paired.

    Raises:
        UserError: its files are damaged.
    """
    summary = summary_of_finished(folder) or {}
    with from_outside(f"{folder}: its files are not as a run writes them"):
        stages = {name: stage for name, stage in summary.get("stages", {}).items() if name != "data"}
        found: dict[str, MeasuredMetric] = {}
        for name, stage in stages.items():
            prefix = "" if len(stages) == 1 else f"{name if name in OFFLINE else ONLINE} "
            found |= {f"{prefix}{metric}": value for metric, value in _of_stage(stage)}
        prefix = f"{ONLINE} " if len(stages) > 1 else ""
        rewards = _rewards_by_prompt(folder)
        return found | ({f"{prefix}training reward": MeasuredMetric.of_prompts(rewards)} if rewards else {})


def _of_stage(stage: Mapping[str, Any]) -> Iterator[tuple[str, MeasuredMetric]]:
    for name, value in stage.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            continue
        match stage.get(f"{name}{INTERVAL}"):
            case [float() | int() as low, float() | int() as high]:
                yield name, MeasuredMetric(value, (high - low) / (2 * Z95))
            case _ if name in ALONE:
                yield name, MeasuredMetric(value)


def _rewards_by_prompt(folder: Path) -> dict[str, float]:
    """Prompt -> mean score of its responses at the newest steps of the run's journal; empty where it has none.

    By the prompt's text, not its id: runs on other files number theirs alike.
    """
    journals = [folder / JOURNAL_FOLDER, *sorted(folder.glob(f"*/{JOURNAL_FOLDER}"))]
    files = next((files for journal in journals if (files := step_files(journal))), [])
    newest = files[-max(1, round(NEWEST_SHARE * len(files))) :] if files else []
    scores: dict[str, list[float]] = defaultdict(list)
    for path in newest:
        with from_outside(f"{path}: expected a journal of rollouts", "put the file back, or delete it"):
            table: pa.Table = pq.read_table(path, columns=["prompt", "score"])
            for prompt, score in zip(table["prompt"].to_pylist(), table["score"].to_pylist(), strict=True):
                if score is not None and math.isfinite(score):
                    scores[prompt].append(score)
    return {prompt: sum(values) / len(values) for prompt, values in scores.items()}
