"""Steps and events from a cursor on, asked for and streamed."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from plumbob.console.web.run_files.run_content import read_grown
from tests.support.finished_run import finished_run
from tests.support.served_runs import asked, events_of, served


def step_line(step: int, **metrics: Any) -> str:
    content = {"stage": "ppo", "step": step, "num_steps": 9, "metrics": metrics, "seconds": {"learn": 1.5}, "time": 7.0}
    return json.dumps(content) + "\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = finished_run(tmp_path / "runs" / "run", "ppo", {})
    (run / "metrics.jsonl").write_text(step_line(1, kl=0.5) + step_line(2, kl=1.0))
    return run


def test_what_was_read_is_not_read_again(run: Path) -> None:
    with served(run.parent) as client:
        first = asked(client, "/api/runs/run/metrics")
        assert [record["step"] for record in first["records"]] == [1, 2]
        assert first["records"][0] == {
            **{
                "stage": "ppo",
                "step": 1,
                "num_steps": 9,
                "metrics": {"kl": 0.5},
                "seconds": {"learn": 1.5},
                "time": 7.0,
            }
        }
        assert asked(client, "/api/runs/run/metrics", after=first["cursor"])["records"] == []
        with (run / "metrics.jsonl").open("a") as file:
            file.write(step_line(3) + step_line(4)[:-20])  # The last is half written.
        second = asked(client, "/api/runs/run/metrics", after=first["cursor"])
        assert [record["step"] for record in second["records"]] == [3] and not second["reset"]
        with (run / "metrics.jsonl").open("a") as file:
            file.write(step_line(4)[-20:])
        third = asked(client, "/api/runs/run/metrics", after=second["cursor"])
        assert [record["step"] for record in third["records"]] == [4]


def test_a_file_that_was_cut_back_begins_anew(run: Path) -> None:
    """A resumed run drops step 2, and makes another; the new file is as long as the old."""
    with served(run.parent) as client:
        cursor = asked(client, "/api/runs/run/metrics")["cursor"]
        for content in (step_line(1, kl=0.5), step_line(1, kl=0.5) + step_line(2, kl=7.0) + step_line(3, kl=2.0)):
            (run / "metrics.jsonl").write_text(content)
            found = asked(client, "/api/runs/run/metrics", after=cursor)
            assert found["reset"] and len(found["records"]) == content.count("\n")


def test_numbers_that_are_none_are_null(run: Path) -> None:
    (run / "metrics.jsonl").write_text(
        '{"stage": "ppo", "step": 1, "num_steps": 9, "metrics": {"a": NaN, "b": Infinity, "c": "text", "d": null}, '
        '"seconds": {"learn": NaN}, "time": NaN}\n'
        "no JSON at all\n[1]\n" + '{"step": "first"}\n' + '{"stage": "ppo", "step": 2, "metrics": 3}\n'
    )
    with served(run.parent) as client:
        found = asked(client, "/api/runs/run/metrics")
    assert [record["metrics"] for record in found["records"]] == [{"a": None, "b": None, "d": None}, {}]
    assert found["records"][0]["seconds"] == {} and found["damaged"] == 3


def test_a_long_file_comes_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"".join(b"%06d\n" % number for number in range(1000)))
    lines: list[bytes] = []
    cursor, has_more, num_parts = "", True, 0
    while has_more:
        grown = read_grown(path, cursor, max_bytes=1000)
        lines += grown.lines
        cursor, has_more, num_parts = grown.cursor, grown.has_more, num_parts + 1
    assert [int(line) for line in lines] == list(range(1000)) and num_parts == 8


def test_a_line_without_an_end_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"x" * 2500 + b"\nnext\n")
    found, cursor, more = [], "", True
    while more:
        grown = read_grown(tmp_path / "lines", cursor, max_bytes=1000)
        found += grown.lines
        cursor, more = grown.cursor, grown.has_more
    assert found[-1] == b"next"


def test_a_stream_goes_on_where_a_page_was(run: Path) -> None:
    with served(run.parent) as client:
        with client.stream("GET", "/api/runs/run/live") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            (first, last_id, data), (second, _, line) = events_of(answer, 2)
        assert (first, second, line["id"]) == ("metrics", "run", "run")
        assert [record["step"] for record in data["records"]] == [1, 2] and last_id is not None
        with (run / "metrics.jsonl").open("a") as file:
            file.write(step_line(3))
        (run / "events.jsonl").write_text('{"time": "2026-11-30T21:41:36.226Z", "event": "saved", "step": 3}\n')
        # What was missing, and nothing else: by the id of the last event, and by the cursor in the address.
        for headers, query in (({"Last-Event-ID": last_id}, {}), ({}, {"metrics": data["cursor"]})):
            with client.stream("GET", "/api/runs/run/live", headers=headers, params=query) as answer:
                (metrics, _, grown), (events, _, happened) = events_of(answer, 2)
            assert (metrics, [record["step"] for record in grown["records"]]) == ("metrics", [3])
            assert (events, [event["event"] for event in happened["events"]]) == ("events", ["saved"])


def test_the_list_of_runs_is_told_what_changed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plumbob.console.web.live_streams.LIST_POLL_S", 0.05)
    with served(run.parent) as client, client.stream("GET", "/api/live") as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("retry")
        found = []

        def next_event() -> Any:
            for line in lines:
                if line.startswith("data: "):
                    return json.loads(line.removeprefix("data: "))
            return None

        import threading

        changing = threading.Timer(1.5, lambda: (run / "metrics.jsonl").write_text(step_line(5)))
        changing.start()
        found = next_event()
        changing.join()
    assert [(line["id"], line["step"]) for line in found["runs"]] == [("run", 5)]


def test_streams_are_bounded(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plumbob.console.web.live_streams.MAX_STREAMS", 0)
    with served(run.parent) as client:
        answer: httpx.Response = client.get("/api/live")
        assert answer.status_code == 503 and "close one" in answer.json()["error"]
