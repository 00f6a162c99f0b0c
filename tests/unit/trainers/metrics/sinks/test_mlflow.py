"""A run in a real local store of MLflow."""

from pathlib import Path

import pytest

from plumbob.configs.settings.metrics.sinks import MlflowSettings
from tests.support.tracked_runs import TIME, write_stopped_and_resumed

mlflow = pytest.importorskip("mlflow")


def test_a_stopped_and_resumed_run_is_one_run_with_all_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # A database needs more than the client.
    uri = (tmp_path / "store").as_uri()
    write_stopped_and_resumed(MlflowSettings(tracking_uri=uri, experiment="cars"), tmp_path)
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("cars")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("align", "FINISHED")
    assert run.data.params["online.learning_rate"] == "0.001" and run.data.params["online.kl.kind"] == "fixed"
    assert run.data.tags["plumbob.kind"] == "pipeline"
    points = client.get_metric_history(run.info.run_id, "ppo/kl")
    assert [(one.step, one.value, one.timestamp) for one in points] == [
        (1, 0.25, round(TIME * 1000) + 2000),
        (2, 0.5, round(TIME * 1000) + 3000),
    ]
    assert [one.value for one in client.get_metric_history(run.info.run_id, "sft/loss")] == [2.0, 1.5]
    assert [one.value for one in client.get_metric_history(run.info.run_id, "sft/seconds/learn")] == [0.25, 0.25]
    assert "ppo/explained_variance" not in run.data.metrics
