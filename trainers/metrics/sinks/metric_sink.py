"""What the steps of a run are written to (`MetricSink`), and what of a step such a sink shows."""

import math
from typing import Protocol

from plumbob.trainers.metrics.step_record import StepRecord


class MetricSink(Protocol):
    """A new one is a module of this folder.

    Those that write into a stage's folder are opened by `trainers.metrics.metrics_log.open_sinks`, and end the run
    when the disk fails. Those that write elsewhere are opened by `trackers.open_tracker`, for the whole run.
    """

    def append(self, record: StepRecord, now: float) -> None:
        """Write a step, which ended at `now`, in seconds since 1970."""

    def truncate_after(self, step: int) -> None:
        """Drop the steps past `step`, as resuming from its checkpoint does; they are about to be made again."""

    def close(self, has_failed: bool) -> None:
        """Nothing more will be written. `has_failed`: an error ended it, or somebody stopped it."""


def points_of(record: StepRecord) -> dict[str, float]:
    """STAGE/NAME, STAGE/seconds/PHASE and STAGE/joules/PHASE -> value; without those that are infinite or NaN."""
    values = dict(record.metrics) | {f"seconds/{phase}": spent for phase, spent in record.seconds.items()}
    values |= {f"joules/{phase}": spent for phase, spent in record.joules.items()}
    return {f"{record.stage}/{name}": float(value) for name, value in values.items() if math.isfinite(value)}
