"""The steps of a run in Trackio."""

import secrets
import sys
from contextlib import redirect_stdout

from plumbob.configs.settings.metrics.sinks import TrackioSettings
from plumbob.trainers.metrics.sinks.metric_sink import MetricSink, points_of
from plumbob.trainers.metrics.sinks.tracked_run import TrackedRun
from plumbob.trainers.metrics.step_record import StepRecord

NEEDED = "trackio"
"""The module that it is for; the extra of Plumbob that installs it is called as the kind."""


class TrackioSink:
    """One run of Trackio for the whole run; as it knows runs by their names, this one's ends in an id."""

    def __init__(self, settings: TrackioSettings, run: TrackedRun) -> None:
        import trackio

        name, had_begun = run.kept_id(settings.kind, lambda: f"{run.name}-{secrets.token_hex(4)}")
        with redirect_stdout(sys.stderr):  # What it prints is no part of what a command prints for scripts.
            self._run = trackio.init(
                project=settings.project,
                name=name,
                config=run.flat_settings(),
                resume="must" if had_begun else "never",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def append(self, record: StepRecord, now: float) -> None:
        self._run.log(points_of(record), step=record.step)

    def truncate_after(self, step: int) -> None:
        """Trackio keeps what it has been given: a step that is made again has two points, the newer being right."""

    def close(self, has_failed: bool) -> None:
        import trackio

        with redirect_stdout(sys.stderr):
            trackio.finish()  # Of the run that this thread began.


def open_sink(settings: TrackioSettings, run: TrackedRun) -> MetricSink:
    return TrackioSink(settings, run)
