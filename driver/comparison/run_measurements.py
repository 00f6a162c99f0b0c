"""What is known of a run's metrics, as far as two runs can be told apart by them (`measurements`)."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from plumbob.configs.resolved_copy import RESOLVED_FILE
from plumbob.configs.resume_rules import flat
from plumbob.configs.settings.algorithms import ALGORITHMS
from plumbob.core.noise.differences import MeasuredMetric
from plumbob.core.outside import from_outside, read_json_object
from plumbob.core.statistics import Z95
from plumbob.driver.measures.response_tables import RESPONSES_DIGEST, digest_of_table
from plumbob.driver.run_folder.folder import summary_of_finished
from plumbob.rollout.journal import JOURNAL_FOLDER
from plumbob.rollout.journal_files import step_files

INTERVAL = "_ci95"
"""Behind the name of a metric: its 95% interval."""

NO_WIDTH = 1e-12
"""Of an interval: less is the rounding of sums."""

ALONE = (
    *("heldout_loss", "heldout_accuracy", "accuracy", "gold_score", "reward", "reward_gain", "gold_gain", "win_rate"),
    *("kl", "answer_tokens", "calibration_error", "train_kl", "teacher_kl", "perplexity"),
)
"""Metrics of a stage that are worth comparing without an interval too."""

ONLINE = "online"
"""The stage of whichever online algorithm: runs of two of them are compared by it."""

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
            prefix = "" if len(stages) == 1 else f"{ONLINE if name in ALGORITHMS else name} "
            found |= {f"{prefix}{metric}": value for metric, value in _of_stage(stage)}
        prefix = f"{ONLINE} " if len(stages) > 1 else ""
        digest = next((stage[RESPONSES_DIGEST] for stage in stages.values() if RESPONSES_DIGEST in stage), None)
        by_prompt = {f"{prefix}training reward": _training_rewards(folder)} | _evaluated_rewards(folder, digest)
        return found | {name: MeasuredMetric.of_prompts(rewards) for name, rewards in by_prompt.items() if rewards}


def _of_stage(stage: Mapping[str, Any]) -> Iterator[tuple[str, MeasuredMetric]]:
    for name, value in stage.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            continue
        match stage.get(f"{name}{INTERVAL}"):
            case [float() | int() as low, float() | int() as high]:
                num = stage.get("num_pairs" if name == "accuracy" else "num_prompts", 0)
                yield name, MeasuredMetric(value, _error(value, low, high), num)
            case _ if name in ALONE:
                yield name, MeasuredMetric(value)


def _error(value: float, low: float, high: float) -> float | None:
    """The standard error that a 95% interval tells; None of one without width, or cut at both ends.

    A chance's is cut to [0, 1]: the end that was left tells its width.
    """
    if math.isclose(low, high, abs_tol=NO_WIDTH) or (low == 0 and high == 1):
        return None
    is_cut = low == 0 or high == 1
    return (max(value - low, high - value) if is_cut else (high - low) / 2) / Z95


def _training_rewards(folder: Path) -> dict[str, float]:
    """Prompt -> mean score of its responses at the newest steps of the run's journal; empty where it has none.

    By the prompt's text, not its id: runs on other files number theirs alike.
    """
    journals = [folder / JOURNAL_FOLDER, *sorted(folder.glob(f"*/{JOURNAL_FOLDER}"))]
    files = next((files for journal in journals if (files := step_files(journal))), [])
    newest = files[-max(1, round(NEWEST_SHARE * len(files))) :] if files else []
    return _mean_scores(newest, "put the file back, or delete it").get("", {})


def _evaluated_rewards(folder: Path, digest: str | None) -> dict[str, dict[str, float]]:
    """Of a run of kind eval that kept its responses: "reward", or "reward of POLICY", -> prompt -> mean score.

    A table with another digest than the run's own is another evaluation's, and passed over.
    """
    path = folder / RESOLVED_FILE
    what = f"{path}: expected the settings of a run as JSON"
    named = flat(read_json_object(path, what).get("config", {})).get("evaluation.responses_file")
    table = Path(str(named))
    if digest is None or named is None or not table.is_file() or digest_of_table(table) != digest:
        return {}
    found = _mean_scores([table], "delete the file, or evaluate again", "policy")
    return {"reward" if policy == "policy" else f"reward of {policy}": scores for policy, scores in found.items()}


def _mean_scores(paths: Sequence[Path], fix: str, by: str | None = None) -> dict[str, dict[str, float]]:
    """Of Parquet files with the columns prompt and score: value of the column `by`, or "", -> prompt -> mean score."""
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for path in paths:
        with from_outside(f"{path}: expected responses with their scores, as Parquet", fix):
            columns = ["prompt", "score", *([] if by is None else [by])]
            for row in pq.read_table(path, columns=columns).to_pylist():
                if row["score"] is not None and math.isfinite(row["score"]):
                    scores["" if by is None else str(row[by])][row["prompt"]].append(row["score"])
    return {
        group: {prompt: sum(values) / len(values) for prompt, values in rows.items()} for group, rows in scores.items()
    }
