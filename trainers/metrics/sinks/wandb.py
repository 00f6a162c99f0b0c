"""The steps of a run in Weights & Biases."""

import secrets

from plumbob.configs.settings.metrics.sinks import WandbSettings
from plumbob.trainers.metrics.sinks.metric_sink import MetricSink, points_of
from plumbob.trainers.metrics.sinks.tracked_run import TrackedRun
from plumbob.trainers.metrics.step_record import StepRecord

NEEDED = "wandb"
"""The module that it is for; the extra of Plumbob that installs it is called as the kind."""

LOGIN_S = 10
"""For who is logged in: nobody is asked for a key while a run runs."""

FINISH_S = 20.0
"""For what has not been sent at the end; without it `wandb` waits for an unreachable server without bound."""


class WandbSink:
    """One run of W&B for the whole run, each stage's metrics over the stage's own steps.

    What `wandb` keeps stands in `trackers/wandb/` of the run's folder.
    """

    def __init__(self, settings: WandbSettings, run: TrackedRun) -> None:
        import wandb

        run_id, _ = run.kept_id(settings.kind, lambda: secrets.token_hex(8))
        self._run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            mode=settings.mode,
            id=run_id,
            name=run.name,
            job_type=run.kind,
            resume="allow",
            dir=str(run.tracker_folder()),
            config=dict(run.settings),
            # What the driver prints is its log's, and the source is its repository's.
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                save_code=False,
                login_timeout=LOGIN_S,
                finish_timeout=FINISH_S,
                finish_timeout_raises=True,
            ),
        )
        self._stages: set[str] = set()

    def append(self, record: StepRecord, now: float) -> None:
        axis = f"{record.stage}/step"
        if record.stage not in self._stages:
            self._stages.add(record.stage)
            self._run.define_metric(axis)
            self._run.define_metric(f"{record.stage}/*", step_metric=axis)
        self._run.log({**points_of(record), axis: record.step})

    def truncate_after(self, step: int) -> None:
        """W&B keeps what it has been sent: a step that is made again has two points, of which the newer is right."""

    def close(self, has_failed: bool) -> None:
        self._run.finish(exit_code=int(has_failed))


def open_sink(settings: WandbSettings, run: TrackedRun) -> MetricSink:
    return WandbSink(settings, run)
