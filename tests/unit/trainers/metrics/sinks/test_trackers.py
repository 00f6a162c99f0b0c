"""Which sinks a run has that are elsewhere; it neither starts without their packages nor fails by them."""

import sys
import tomllib
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import AnyRun
from plumbob.configs.settings.metrics.sinks import OpenTelemetrySettings, SinkSettings, WandbSettings
from plumbob.core.errors import UserError
from plumbob.driver.api import check_input
from plumbob.trainers.metrics.sinks import trackers
from plumbob.trainers.metrics.sinks.metric_sink import MetricSink
from plumbob.trainers.metrics.sinks.tracked_run import TrackedRun
from plumbob.trainers.metrics.sinks.trackers import check_trackers, opened_trackers, tracker_module, trackers_of
from tests.support.source_tree import ROOT, modules, text
from tests.support.tracked_runs import tracked_step

NOBODY = "http://127.0.0.1:9"


def test_each_tracker_of_the_settings_is_opened_by_the_module_of_its_name_and_no_other_module_opens_one() -> None:
    variants = {str(one.model_fields["kind"].default): one for one in get_args(get_args(SinkSettings)[0])}
    assert set(variants) >= {"wandb", "opentelemetry"}
    for kind, variant in variants.items():
        module = tracker_module(kind)
        assert get_type_hints(module.open_sink) == {"settings": variant, "run": TrackedRun, "return": MetricSink}
    opening = {name for name in modules() if name.startswith("trainers.") and "def open_sink(" in text(name)}
    assert opening == {f"trainers.metrics.sinks.{kind}" for kind in variants} | {"trainers.metrics.sinks.trackers"}


def test_what_a_tracker_needs_is_the_extra_of_its_name() -> None:
    """Which is what a user is told to install."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for variant in get_args(get_args(SinkSettings)[0]):
        kind = str(variant.model_fields["kind"].default)
        assert any(one.startswith(tracker_module(kind).NEEDED.partition(".")[0]) for one in extras[kind])


@pytest.fixture(autouse=True)
def no_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)


def sft(*overrides: str) -> AnyRun:
    return load_run("sft", ["policy.model=m", "data.demonstrations=d.jsonl", "name=align", *overrides])


def test_a_run_has_the_sinks_of_its_settings_and_the_collector_of_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = sft("sinks=[{kind: wandb, project: cars}]")
    assert trackers_of(sft()) == () and trackers_of(named) == (WandbSettings(project="cars"),)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NOBODY)
    assert trackers_of(named) == (WandbSettings(project="cars"), OpenTelemetrySettings())
    own = sft("sinks=[{kind: opentelemetry, endpoint: 'http://here:4318'}]")
    assert trackers_of(own) == (OpenTelemetrySettings(endpoint="http://here:4318"),)


def test_a_package_that_is_missing_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plumbob.trainers.metrics.sinks.wandb.NEEDED", "no_such_package")
    monkeypatch.setattr("plumbob.trainers.metrics.sinks.mlflow.NEEDED", "no_such_package.below")
    check_trackers(sft())
    for kind, package in (("wandb", "no_such_package"), ("mlflow", "no_such_package")):
        with pytest.raises(UserError) as refused:
            check_input(sft(f"sinks=[{{kind: {kind}}}]"))
        assert str(refused.value) == (
            f"sinks: kind {kind} needs the package {package}, which is not installed here; install it with: "
            f"pip install 'plumbob[{kind}]'"
        )


def test_a_collector_of_the_environment_refuses_no_run_where_its_package_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NOBODY)
    monkeypatch.setattr("plumbob.trainers.metrics.sinks.opentelemetry.NEEDED", "no_such_package")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    check_trackers(sft())
    told: list[str] = []
    with opened_trackers(sft(), tmp_path, told.append) as (sink,):
        sink.append(tracked_step("sft", 1, loss=2.0), 1.0)
    assert len(told) == 1 and told[0].startswith("opentelemetry cannot be opened: ModuleNotFoundError: import of ")
    with pytest.raises(UserError, match=r"pip install 'plumbob\[opentelemetry\]'"):
        check_trackers(sft("sinks=[{kind: opentelemetry}]"))


@pytest.mark.parametrize(
    ("sinks", "message"),
    [
        ("[{kind: wandb}, {kind: wandb, mode: offline}]", "sinks: wandb stands there twice"),
        ("[{kind: mlflow, tracking_uri: 'http://me:secret@host'}]", "an address without user and password"),
        ("[{kind: mlflow, tracking_uri: 'http://host?api_key=secret'}]", "an address without a key or token"),
        ("[{kind: tensorborad}]", "'wandb', 'mlflow', 'trackio', 'opentelemetry'"),
    ],
)
def test_settings_that_cannot_be_are_refused(sinks: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        sft(f"sinks={sinks}")
    assert message in str(refused.value)


def test_one_that_nobody_answers_is_said_once_and_the_block_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")  # Seconds, within which it tries again.
    told: list[str] = []
    config = sft(f"sinks=[{{kind: opentelemetry, endpoint: '{NOBODY}'}}]")
    with opened_trackers(config, tmp_path, told.append) as (sink,):
        sink.append(tracked_step("sft", 1, loss=2.0), 1.0)
    assert len(told) == 1 and "opentelemetry failed, and is tried again" in told[0] and NOBODY in told[0]


@pytest.mark.parametrize("fails", [False, True])
def test_they_are_told_whether_the_run_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    ends: list[bool] = []

    class Ending:
        def append(self, *_: Any) -> None: ...

        def truncate_after(self, step: int) -> None: ...

        def close(self, has_failed: bool) -> None:
            ends.append(has_failed)

    monkeypatch.setattr(trackers, "open_tracker", lambda settings, run: Ending())
    try:
        with opened_trackers(sft("sinks=[{kind: wandb}]"), tmp_path, print):
            if fails:
                raise RuntimeError("the loss is NaN")
    except RuntimeError:
        pass
    assert ends == [fails]


def test_an_id_is_kept_in_the_run_s_folder(tmp_path: Path) -> None:
    run = TrackedRun("align", "sft", tmp_path, {})
    assert run.kept_id("wandb", lambda: "abc") == ("abc", False)
    assert run.kept_id("wandb", lambda: "other") == ("abc", True)
    assert (tmp_path / "trackers/wandb.json").read_text() == '{"id": "abc"}\n'
