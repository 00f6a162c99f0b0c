"""Logs one by one and merged, and who was at what when."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from plumbob.console.web.run_files import trace_spans
from plumbob.console.web.run_files.trace_spans import MAX_SPANS, TraceSpans
from tests.support.finished_run import finished_run
from tests.support.served_runs import asked, served

DAY = "2026-11-30T21:41:"
NOON = 1796074896.0
"""2026-11-30T21:41:36Z, in seconds since 1970."""

RUNNING = f"process {os.getpid()} on {socket.gethostname()} since now\n"
"""What the lock of a driver that is at work says."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = finished_run(tmp_path / "runs" / "run", "ppo", {})
    (run / "logs").mkdir()
    (run / "driver.log").write_text(f"{DAY}36.000Z begins\n{DAY}38.000Z ends\n")
    (run / "logs" / "rollout-1.log").write_text(f"{DAY}37.000Z <script>\n  of two lines\n")
    return run


def test_logs_one_by_one(run: Path) -> None:
    (run / "driver.lock").write_text(RUNNING)
    with served(run.parent) as client:
        names = [file["name"] for file in asked(client, "/api/runs/run/logs")["files"]]
        assert names == ["driver.log", "rollout-1.log"]
        found = asked(client, "/api/runs/run/logs/driver.log")
        assert found["text"].splitlines() == [f"{DAY}36.000Z begins", f"{DAY}38.000Z ends"]
        with (run / "driver.log").open("a") as file:
            file.write("new\nhalf")
        assert asked(client, "/api/runs/run/logs/driver.log", after=found["cursor"])["text"] == "new\n"
        last = asked(client, "/api/runs/run/logs/driver.log", after=-1, limit=40)
        assert last["text"] == f"{DAY}38.000Z ends\nnew\n" and last["size"] == (run / "driver.log").stat().st_size


def test_logs_merged_by_their_stamps(run: Path) -> None:
    with served(run.parent) as client:
        found = asked(client, "/api/runs/run/logs/merged")
        assert found["text"].splitlines() == [
            f"driver.log: {DAY}36.000Z begins",
            f"rollout-1.log: {DAY}37.000Z <script>",
            "rollout-1.log:   of two lines",
            f"driver.log: {DAY}38.000Z ends",
        ]
        with (run / "logs" / "rollout-1.log").open("a") as file:
            file.write(f"{DAY}39.000Z more\n")
        grown = asked(client, "/api/runs/run/logs/merged", after=found["cursor"])
        assert grown["text"] == f"rollout-1.log: {DAY}39.000Z more\n"
        assert asked(client, "/api/runs/run/logs/merged", after=grown["cursor"])["text"] == ""
        assert asked(client, "/api/runs/run/logs/merged", after=-1, limit=40)["text"].count("\n") == 2


@pytest.mark.parametrize("name", ["rollout-1.log", "merged"])
def test_a_last_line_without_an_end_is_shown_once_nobody_can_end_it(run: Path, name: str) -> None:
    with (run / "logs" / "rollout-1.log").open("a") as file:
        file.write("Segmentation fa")
    with served(run.parent) as client:
        (run / "driver.lock").write_text(RUNNING)
        written = asked(client, f"/api/runs/run/logs/{name}")
        assert "Segmentation" not in written["text"]
        (run / "driver.lock").unlink()
        rest = asked(client, f"/api/runs/run/logs/{name}", after=written["cursor"])
        assert rest["text"].rstrip().endswith("Segmentation fa")
        assert asked(client, f"/api/runs/run/logs/{name}", after=rest["cursor"])["text"] == ""


@pytest.mark.parametrize("name", ["rollout-1.log", "merged"])
def test_a_log_is_read_in_parts(run: Path, name: str) -> None:
    """A line of 34 bytes and one of 15: at most 40 bytes at once."""
    (run / "driver.log").unlink()
    with served(run.parent) as client:
        first = asked(client, f"/api/runs/run/logs/{name}", limit=40)
        rest = asked(client, f"/api/runs/run/logs/{name}", limit=40, after=first["cursor"])
    assert (first["text"].count("\n"), first["more"]) == (1, True)
    assert rest["text"].endswith("  of two lines\n") and rest["more"] is False


def test_a_timeline_of_a_trace(run: Path) -> None:
    trace = [
        {"name": "thread_name", "ph": "M", "pid": 0, "tid": 0, "args": {"name": "driver"}},
        {"name": "thread_name", "ph": "M", "pid": 0, "tid": 1, "args": {"name": "rollout-1"}},
        {"name": "loading the libraries", "ph": "X", "pid": 0, "tid": 0, "ts": 1_000_000, "dur": 500_000},
        {"name": "sample", "ph": "X", "pid": 0, "tid": 0, "ts": 1_500_000, "dur": 1_000_000},
        {"name": "sample", "ph": "X", "pid": 0, "tid": 1, "ts": 1_600_000, "dur": 900_000},
    ]
    lines = ",\n".join(json.dumps(event) for event in trace)
    (run / "trace.json").write_text(f"[\n{lines},\n" + '{"name": "half')
    with served(run.parent) as client:
        found = asked(client, "/api/runs/run/timeline")
    assert (found["source"], found["began"], found["ended"]) == ("trace", 1.0, 2.5)
    driver, rollout = found["workers"]
    assert [(span["begin"], span["end"], span["state"], span["what"]) for span in driver["spans"]] == [
        (1.0, 1.5, "loading", "loading the libraries"),
        (1.5, 2.5, "busy", "sample"),
    ]
    assert (rollout["worker"], rollout["role"]) == ("rollout-1", "rollout")


def test_a_timeline_of_events_and_phases(run: Path) -> None:
    """A step of 1 s of sampling and 2 s of learning ends at 21:41:36; a rollout worker is lost a second before."""
    step = {"stage": "ppo", "step": 1, "num_steps": 9, "metrics": {}, "seconds": {"sample": 1.0, "learn": 2.0}}
    (run / "metrics.jsonl").write_text(json.dumps(step | {"time": NOON}) + "\n")
    events: list[dict[str, Any]] = [
        {"time": f"{DAY}30.000Z", "event": "joined", "worker": "rollout-1", "on": "10.0.0.2"},
        {"time": f"{DAY}30.000Z", "event": "joined", "worker": "learner-0", "on": "10.0.0.1"},
        {"time": f"{DAY}35.000Z", "event": "lost", "slot": "rollout-1", "why": "its host went"},
        {"time": f"{DAY}36.500Z", "event": "published", "stage": "ppo", "version": 1},
    ]
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    with served(run.parent) as client:
        found = asked(client, "/api/runs/run/timeline")
    assert found["source"] == "events" and found["published"] == [{"time": NOON + 0.5, "version": 1}]
    workers = {worker["worker"]: worker for worker in found["workers"]}
    assert workers["rollout-1"]["host"] == "10.0.0.2"
    states = [(span["begin"] - NOON, span["end"] - NOON, span["state"]) for span in workers["rollout-1"]["spans"]]
    assert states == [(-3, -2, "busy"), (-2, -1, "idle"), (-1, 0, "lost")]
    assert [span["state"] for span in workers["learner-0"]["spans"]] == ["idle", "busy"]


def test_a_long_timeline_is_bounded(run: Path) -> None:
    step = {"stage": "ppo", "num_steps": 9, "metrics": {}, "seconds": {"sample": 0.5, "learn": 0.5}}
    lines = [json.dumps(step | {"step": number, "time": float(number)}) for number in range(1, MAX_SPANS)]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with served(run.parent) as client:
        found = asked(client, "/api/runs/run/timeline")
    (driver,) = found["workers"]
    assert found["more"] and len(driver["spans"]) == MAX_SPANS - 1
    assert (found["began"], found["ended"]) == (0.0, MAX_SPANS - 1)


def traced(number: int, row: int = 1) -> bytes:
    """A second of work that begins at second `number`."""
    event = {"name": "sample", "ph": "X", "pid": 0, "tid": row, "ts": number * 1_000_000, "dur": 1_000_000}
    return json.dumps(event).encode()


NAMED = json.dumps({"name": "thread_name", "ph": "M", "tid": 1, "args": {"name": "rollout-1"}}).encode()


def test_a_trace_is_read_from_where_it_was_read_before(tmp_path: Path) -> None:
    path, traces = tmp_path / "trace.json", TraceSpans()

    def begins() -> list[float]:
        return [span["begin"] for span in traces.of(path).workers.get("rollout-1", [])]

    path.write_bytes(b"[\n" + NAMED + b",\n" + traced(1))  # A comma comes with the next event.
    assert begins() == begins() == [1.0]
    with path.open("ab") as file:
        file.write(b",\n" + traced(2) + b",\n" + traced(3)[:9])
    assert begins() == [1.0, 2.0]
    with path.open("ab") as file:
        file.write(traced(3)[9:] + b"\n]\n")
    assert begins() == [1.0, 2.0, 3.0]
    # A resumed run takes the end away and writes there.
    path.write_bytes(path.read_bytes().removesuffix(b"\n]\n") + b",\n" + traced(4))
    assert begins() == [1.0, 2.0, 3.0, 4.0]
    # Another file of the same name is read from its beginning.
    path.unlink()
    path.write_bytes(b"[\n" + NAMED + b",\n" + traced(7))
    assert begins() == [7.0]


def test_a_long_trace_is_read_in_portions_and_kept_in_few_spans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, traces = tmp_path / "trace.json", TraceSpans()
    path.write_bytes(b"[\n" + NAMED + b"".join(b",\n" + traced(number) for number in range(100)))
    monkeypatch.setattr(trace_spans, "READ_BYTES", path.stat().st_size // 2)
    first = traces.of(path)
    # Half of 100 events of about as many bytes, and what of them is not read yet.
    assert 45 <= len(first.workers["rollout-1"]) <= 52 and first.unread > 40 * len(traced(1))
    rest = traces.of(path)
    while rest.unread:
        rest = traces.of(path)
    assert [span["begin"] for span in rest.workers["rollout-1"]] == [float(number) for number in range(100)]
    assert not rest.is_merged
    monkeypatch.setattr(trace_spans, "KEPT_SPANS", 30)
    few = TraceSpans()
    while (found := few.of(path)).unread:
        pass
    spans = found.workers["rollout-1"]
    assert found.is_merged and len(spans) <= 30
    assert (spans[0]["begin"], spans[-1]["end"]) == (0.0, 100.0)
