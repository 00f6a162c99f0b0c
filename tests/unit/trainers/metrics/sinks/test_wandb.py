"""A run in W&B's offline mode, read back from the files that `wandb sync` would send."""

import json
from pathlib import Path

import pytest

from plumbob.configs.settings.metrics.sinks import WandbSettings
from plumbob.trainers.metrics.sinks.guarded_sink import CLOSE_S
from plumbob.trainers.metrics.sinks.trackers import open_tracker
from tests.support.tracked_runs import tracked_run, write_stopped_and_resumed
from tests.support.wandb_files import wandb_records

pytest.importorskip("wandb")


def test_a_server_that_is_gone_is_not_waited_for_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what `wandb` has for it, less than the run waits for the sink."""
    import wandb

    given: list[wandb.Settings] = []
    monkeypatch.setattr(wandb, "init", lambda settings, **_: given.append(settings))
    open_tracker(WandbSettings(), tracked_run(tmp_path))
    assert (given[0].finish_timeout, given[0].finish_timeout_raises) == (20, True) and CLOSE_S > 20


def test_a_stopped_and_resumed_run_is_one_run_with_all_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    write_stopped_and_resumed(WandbSettings(project="cars", mode="offline"), tmp_path)
    found = wandb_records(tmp_path / "trackers")
    runs = [one.run for one in found if one.WhichOneof("record_type") == "run"]
    assert {(run.run_id, run.display_name, run.project, run.job_type) for run in runs} == {
        (json.loads((tmp_path / "trackers/wandb.json").read_text())["id"], "align", "cars", "pipeline")
    }
    assert {item.key for item in runs[0].config.update} >= {"online", "seed"}
    rows = []
    for one in found:
        if one.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in one.history.item}
            rows.append({key: value for key, value in items.items() if not key.startswith("_")})
    assert rows == [
        {"sft/loss": 2.0, "sft/seconds/learn": 0.25, "sft/step": 1},
        {"sft/loss": 1.5, "sft/seconds/learn": 0.25, "sft/step": 2},
        {"ppo/kl": 0.25, "ppo/seconds/learn": 0.25, "ppo/step": 1},
        {"ppo/kl": 0.5, "ppo/seconds/learn": 0.25, "ppo/step": 2},
    ]
    axes = {one.metric.glob_name or one.metric.name: one.metric for one in found if one.HasField("metric")}
    assert {"sft/*", "ppo/*"} <= axes.keys()
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and b"0123456789" * 4 in path.read_bytes()]
    assert kept == []
