"""The metrics file: one whole line a step, readable after a kill, cut back on resume."""

import json
import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.sinks.jsonl import read_metrics
from plumbob.trainers.metrics.stage_result import StageSummary
from plumbob.trainers.metrics.step_record import StepRecord, WorkerCounts
from tests.support.disk_calls import record_disk_calls
from tests.support.folder_names import names


class Listening:
    def __init__(self) -> None:
        self.heard: list[StepRecord] = []

    def stage_began(self, stage: str) -> None: ...

    def stepped(self, record: StepRecord) -> None:
        self.heard.append(record)

    def notify(self, stage: str, message: str) -> None: ...

    def workers_changed(self, workers: WorkerCounts) -> None: ...

    def stage_ended(self, stage: str, summary: StageSummary) -> None: ...


def record(step: int, loss: float = 0.5) -> StepRecord:
    return StepRecord("dpo", step, 4, {"loss": loss}, {"learn": 0.25})


def test_each_step_is_a_line_on_disk_before_append_returns(tmp_path: Path) -> None:
    listener = Listening()
    with MetricsLog(tmp_path, listener) as log:
        log.append(record(1))
        line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line.pop("time") > 1.7e9
    assert line == {"stage": "dpo", "step": 1, "num_steps": 4, "metrics": {"loss": 0.5}, "seconds": {"learn": 0.25}}
    assert listener.heard == [record(1)] == read_metrics(tmp_path)


def test_a_line_is_flushed_and_the_file_before_it_replaces_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, replaced = (
        record_disk_calls(monkeypatch),
        [
            ("fsync", ".metrics.jsonl.partial"),
            ("replace", "metrics.jsonl"),
            ("fsync", tmp_path.name),
        ],
    )
    with MetricsLog(tmp_path, Listening()) as log:
        assert calls == replaced
        log.append(record(1))
        assert calls == [*replaced, ("fsync", "metrics.jsonl")]
        calls.clear()
        log.truncate_after(0)
        assert calls == replaced


def test_a_number_that_json_has_not_is_null_in_the_file_and_nan_when_read(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, Listening()) as log:
        log.append(record(1, loss=math.inf))
    assert '"loss": null' in (tmp_path / "metrics.jsonl").read_text()
    assert math.isnan(read_metrics(tmp_path)[0].metrics["loss"])


def test_resuming_drops_the_steps_past_the_checkpoint_and_appends_after_it(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, Listening()) as log:
        for step in (1, 2, 3):
            log.append(record(step))
    with MetricsLog(tmp_path, Listening()) as log:
        log.truncate_after(1)
        assert [past.step for past in read_metrics(tmp_path)] == [1]
        log.append(record(2, loss=0.75))
    assert [(past.step, past.metrics["loss"]) for past in read_metrics(tmp_path)] == [(1, 0.5), (2, 0.75)]
    assert names(tmp_path) == ["metrics.jsonl", "tensorboard"]


def test_a_torn_last_line_is_no_step_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, Listening()) as log:
        log.append(record(1))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "dpo", "st')
    assert read_metrics(tmp_path) == [record(1)]
    with MetricsLog(tmp_path, Listening()) as log:
        log.append(record(2))
    assert read_metrics(tmp_path) == [record(1), record(2)]


def test_tensorboard_reads_the_events(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, Listening()) as log:
        log.append(record(1, loss=0.5))
        log.append(record(2, loss=0.25))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("dpo/loss")] == [(1, 0.5), (2, 0.25)]
    assert [event.value for event in events.Scalars("dpo/seconds/learn")] == [0.25, 0.25]


def test_tensorboard_shows_no_event_of_steps_that_were_made_again(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, Listening()) as log:
        for step in (1, 2, 3):
            log.append(record(step))
    with MetricsLog(tmp_path, Listening()) as log:
        log.truncate_after(1)
        log.append(record(2, loss=0.75))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("dpo/loss")] == [(1, 0.5), (2, 0.75)]


class Sink:
    """Writes down what it is asked; cannot be closed where `is_broken`."""

    def __init__(self, name: str, calls: list[str], is_broken: bool = False) -> None:
        self.name, self.calls, self.is_broken = name, calls, is_broken

    def append(self, record: StepRecord, now: float) -> None:
        self.calls.append(f"{self.name}: step {record.step}")

    def truncate_after(self, step: int) -> None:
        self.calls.append(f"{self.name}: back to {step}")

    def close(self, has_failed: bool) -> None:
        self.calls.append(f"{self.name}: closed")
        if self.is_broken:
            raise OSError("no space left on device")


def test_every_sink_has_a_step_before_the_listener_and_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    sinks = (Sink("first", calls, is_broken=True), Sink("second", calls))
    monkeypatch.setattr("plumbob.trainers.metrics.metrics_log.open_sinks", lambda folder: sinks)
    listener = Listening()
    monkeypatch.setattr(listener, "stepped", lambda record: calls.append(f"heard: step {record.step}"))
    with pytest.raises(OSError, match="no space"), MetricsLog(tmp_path, listener) as log:
        log.append(record(1))
        log.truncate_after(0)
    assert calls == [
        *("first: step 1", "second: step 1", "heard: step 1"),
        *("first: back to 0", "second: back to 0", "first: closed", "second: closed"),
    ]


def test_no_file_is_no_steps(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
