"""The steps of a run in MLflow."""

from typing import Any

from plumbob.configs.settings.metrics.sinks import MlflowSettings
from plumbob.trainers.metrics.sinks.metric_sink import MetricSink, points_of
from plumbob.trainers.metrics.sinks.tracked_run import TrackedRun
from plumbob.trainers.metrics.step_record import StepRecord

NEEDED = "mlflow"
"""The module that it is for; the extra of Plumbob that installs it is called as the kind."""

MAX_PARAMS = 100
MAX_PARAM_CHARS = 500
"""What one request, and one value, may have in every version of MLflow's server."""


class MlflowSink:
    """One run of MLflow for the whole run, its settings as parameters."""

    def __init__(self, settings: MlflowSettings, run: TrackedRun) -> None:
        from mlflow import MlflowClient

        self._client: Any = MlflowClient(tracking_uri=settings.tracking_uri)
        self._id, had_begun = run.kept_id(settings.kind, lambda: self._begin(settings.experiment, run))
        if had_begun:
            self._client.update_run(self._id, status="RUNNING")

    def _begin(self, experiment: str, run: TrackedRun) -> str:
        """A new run with its parameters; gives its id."""
        from mlflow.entities import Param

        found = self._client.get_experiment_by_name(experiment)
        number = self._client.create_experiment(experiment) if found is None else found.experiment_id
        run_id: str = self._client.create_run(number, run_name=run.name, tags={"plumbob.kind": run.kind}).info.run_id
        params = [Param(key, str(value)[:MAX_PARAM_CHARS]) for key, value in run.flat_settings().items()]
        for start in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(run_id, params=params[start : start + MAX_PARAMS])
        return run_id

    def append(self, record: StepRecord, now: float) -> None:
        from mlflow.entities import Metric

        time_ms = round(now * 1000)
        points = [Metric(name, value, time_ms, record.step) for name, value in points_of(record).items()]
        self._client.log_batch(self._id, metrics=points)

    def truncate_after(self, step: int) -> None:
        """MLflow keeps what it has been sent: a step that is made again has two values, of which the newer counts."""

    def close(self, has_failed: bool) -> None:
        self._client.set_terminated(self._id, "FAILED" if has_failed else "FINISHED")


def open_sink(settings: MlflowSettings, run: TrackedRun) -> MetricSink:
    return MlflowSink(settings, run)
