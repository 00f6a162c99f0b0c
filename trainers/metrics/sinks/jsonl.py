"""Each step as a line of `metrics.jsonl`, and the steps read back from it."""

import math
from collections.abc import Mapping
from pathlib import Path

from plumbob.trainers.metrics.json_lines import JsonLines, read_json_lines
from plumbob.trainers.metrics.step_record import StepRecord

METRICS_FILE = "metrics.jsonl"


class JsonlSink:
    """The file of metrics in a folder. Values that are not finite are written as null."""

    def __init__(self, folder: Path) -> None:
        self._lines = JsonLines(folder / METRICS_FILE)

    def append(self, record: StepRecord, now: float) -> None:
        content = {
            "stage": record.stage,
            "step": record.step,
            "num_steps": record.num_steps,
            "metrics": finite(record.metrics),
            "seconds": finite(record.seconds),
            **({"num_samples": record.num_samples} if record.num_samples else {}),
            **({"joules": finite(record.joules)} if record.joules else {}),
            "time": round(now, 3),
        }
        self._lines.append(content)

    def truncate_after(self, step: int) -> None:
        self._lines.keep(lambda content: content["step"] <= step)

    def close(self, has_failed: bool) -> None:
        self._lines.close()


def read_metrics(folder: Path) -> list[StepRecord]:
    """The steps in `folder`'s file of metrics, null read as NaN; an empty list where there is no file.

    Raises KeyError, ValueError or AttributeError where a line is no step.
    """
    records = []
    for content in read_json_lines(folder / METRICS_FILE):
        metrics, seconds, joules = (
            {name: math.nan if value is None else value for name, value in content.get(part, {}).items()}
            for part in ("metrics", "seconds", "joules")
        )
        stage, step, num_steps = content["stage"], content["step"], content["num_steps"]
        if not (isinstance(stage, str) and isinstance(step, int) and isinstance(num_steps, int)):
            raise ValueError(
                f"{METRICS_FILE}: expected a stage and two numbers of steps, found {stage}, {step}, {num_steps}"
            )
        num_samples = content.get("num_samples", 0)  # Runs of before it was counted have none.
        records.append(StepRecord(stage, step, num_steps, metrics, seconds, num_samples=num_samples, joules=joules))
    return records


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """The values with None for what JSON has no number for."""
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
