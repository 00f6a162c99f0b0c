"""Traces as files: what Chrome's trace event format asks for, also of processes that were killed."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from plumbob.core.activities import activities
from plumbob.core.spans import Spans, spans
from plumbob.trainers.metrics.step_record import Phases


def written(path: Path) -> list[dict[str, Any]]:
    """The spans, each with its row's name; every event is one of the format's, and times are whole microseconds."""
    events = json.loads(path.read_text())
    rows = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    found = [event | {"row": rows[event["tid"]]} for event in events if event["ph"] == "X"]
    assert {event["ph"] for event in events} <= {"M", "X"}
    assert all(isinstance(event[key], int) and event[key] >= 0 for event in found for key in ("ts", "dur"))
    return found


def test_phases_and_what_is_done_within_them_stand_in_the_row_of_their_thread(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    before = time.time()
    with spans.written_to(path):
        with Phases().phase("sample"), activities.during("2 rollout workers: sampling"):
            time.sleep(0.02)
        other = threading.Thread(target=activities.during("reading")(lambda: None), name="collector")
        other.start()
        other.join()
        spans.record("rollout-0", "sampling", time.monotonic() - 0.5)
    inner, outer, elsewhere, worker = written(path)
    assert [(span["row"], span["name"]) for span in (inner, outer, elsewhere, worker)] == [
        ("driver", "2 rollout workers: sampling"),
        ("driver", "sample"),
        ("collector", "reading"),
        ("rollout-0", "sampling"),
    ]
    assert outer["ts"] <= inner["ts"] and inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"]
    assert inner["dur"] >= 20_000 and worker["dur"] == pytest.approx(500_000, abs=50_000)
    assert before <= inner["ts"] / 1e6 + 0.001 <= time.time() + 0.002
    spans.record("rollout-0", "after the end", time.monotonic())
    assert len(written(path)) == 4


def test_a_resumed_run_appends(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    for doing in ("first", "second"):
        one = Spans()  # Of a process of its own.
        with one.written_to(path):
            one.record("driver", doing, time.monotonic())
    assert [span["name"] for span in written(path)] == ["first", "second"]


@pytest.mark.parametrize("torn", ["", "[\n", '[\n{"name": "thr'])
def test_what_a_killed_process_left_is_made_whole(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "trace.json"
    path.write_text(torn)
    with spans.written_to(path):
        spans.record("driver", "second", time.monotonic())
    assert [span["name"] for span in written(path)] == ["second"]


def test_whole_lines_of_a_killed_process_stay(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with spans.written_to(path):
        spans.record("driver", "first", time.monotonic())
        spans.record("driver", "torn", time.monotonic())
    path.write_text(path.read_text()[:-20])  # In the middle of the second span.
    with spans.written_to(path):
        spans.record("driver", "second", time.monotonic())
    assert [span["name"] for span in written(path)] == ["first", "second"]


def test_a_trace_without_spans_is_an_array(tmp_path: Path) -> None:
    with spans.written_to(tmp_path / "trace.json"):
        pass
    assert written(tmp_path / "trace.json") == []
