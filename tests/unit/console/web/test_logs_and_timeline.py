"""Logs one by one and merged, and who was at what when."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from plumbob.console.web.run_files.timeline import MAX_SPANS
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
