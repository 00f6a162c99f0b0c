"""The record of a run: what is on the disk after each event, after a torn line, and after an end."""

import json
import os
import socket
from pathlib import Path

import pytest

from plumbob.core.errors import RunPreempted, UserError
from plumbob.core.stamped_lines import utc_now
from plumbob.driver.run_folder.event_log import TAIL_BYTES, EventLog
from plumbob.driver.run_folder.folder import EVENTS_FILE
from plumbob.driver.run_folder.step_events import DoneStep, is_step, read_events
from plumbob.trainers.metrics.json_lines import read_json_lines


def test_each_event_is_a_whole_line_when_it_is_recorded(tmp_path: Path) -> None:
    log, path = EventLog(tmp_path), tmp_path / EVENTS_FILE
    assert not path.exists()  # Nothing has happened.
    log.record("saved", step=3)
    log.record("steered", by={"user": "ann", "host": "desk", "pid": 7}, what="stop")
    saved, steered = (json.loads(line) for line in path.read_text().splitlines())
    assert (saved["event"], saved["step"]) == ("saved", 3)
    assert saved["by"] | {"user": ""} == {"user": "", "host": socket.gethostname(), "pid": os.getpid()}
    assert steered["by"]["user"] == "ann" and steered["what"] == "stop"


def test_a_later_driver_takes_off_what_a_dead_one_had_begun(tmp_path: Path) -> None:
    path = tmp_path / EVENTS_FILE
    EventLog(tmp_path).record("started")
    with path.open("a") as file:
        file.write('{"time": "2026-')
    EventLog(tmp_path).record("resumed")
    assert [event["event"] for event in read_json_lines(path)] == ["started", "resumed"]
    assert path.read_text().endswith("}\n")


@pytest.mark.parametrize("before", [0, 10, 2 * TAIL_BYTES])
def test_a_torn_line_longer_than_what_is_read_at_once_is_taken_off(tmp_path: Path, before: int) -> None:
    path, whole = tmp_path / EVENTS_FILE, b"x" * before + b"\n" if before else b""
    path.write_bytes(whole + b"y" * (3 * TAIL_BYTES))
    EventLog(tmp_path).record("resumed")
    found = path.read_bytes()
    assert found.startswith(whole + b'{"time"') and found.count(b"\n") == whole.count(b"\n") + 1


def test_steps_are_told_from_other_events_by_their_beginning(tmp_path: Path) -> None:
    log, path = EventLog(tmp_path), tmp_path / EVENTS_FILE
    log.record("steered", what='a person wrote "event": "step"')
    log.record_steps([DoneStep("sft", 1, utc_now()), DoneStep("sft", 2, utc_now())], "saved", stage="sft", step=2)
    assert [is_step(line) for line in path.read_bytes().splitlines()] == [False, True, True, False]
    assert [event["event"] for event in read_events(path)] == ["steered", "saved"]
    with path.open("a") as file:
        file.write('{"time": "2026-')
    assert len(read_events(path)) == 2 and read_events(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (RunPreempted("SIGTERM: the run was asked to stop"), "stopped"),
        (KeyboardInterrupt(), "stopped"),
        (UserError("data.pairs: row 3 is empty"), "refused"),
        (OSError(28, "No space left on device"), "failed"),
    ],
)
def test_why_a_run_ended(tmp_path: Path, error: BaseException, event: str) -> None:
    log = EventLog(tmp_path)
    with pytest.raises(type(error)), log.of_end():
        raise error
    (told,) = read_json_lines(tmp_path / EVENTS_FILE)
    assert told["event"] == event and told["why"] == (str(error) or "KeyboardInterrupt")


def test_an_end_that_cannot_be_recorded_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="row 3"), EventLog(tmp_path / "gone").of_end():
        raise UserError("row 3")
