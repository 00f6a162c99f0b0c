"""A run followed by its folder or by its control actor, told to a listener."""

import json
import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plumbob.cluster.run_status import RunStatus, WorkerStatus
from plumbob.core.errors import NotRunningError
from plumbob.driver.following.control_feed import ControlFeed
from plumbob.driver.following.folder_feed import FolderFeed
from plumbob.driver.following.followed_ending import FollowedEnding
from plumbob.trainers.metrics.stage_result import StageSummary
from plumbob.trainers.metrics.step_record import ResponseSample, StepRecord, WorkerCounts
from tests.support.run_statuses import NO_STATUS, at_step


class Noting:
    """Keeps all that it hears, in order."""

    def __init__(self) -> None:
        self.notes: list[tuple[Any, ...]] = []

    def stage_began(self, stage: str) -> None:
        self.notes.append(("began", stage))

    def stepped(self, record: StepRecord) -> None:
        self.notes.append(("step", record.stage, record.step, record.sample))

    def notify(self, stage: str, message: str) -> None:
        self.notes.append(("message", stage, message))

    def workers_changed(self, workers: WorkerCounts) -> None:
        self.notes.append(("workers", workers))

    def stage_ended(self, stage: str, summary: StageSummary) -> None:
        self.notes.append(("ended", stage, summary.seconds))

    def take(self) -> list[tuple[Any, ...]]:
        notes, self.notes = self.notes, []
        return notes


def append(path: Path, **content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(content) + "\n")


def step(folder: Path, stage: str, number: int) -> None:
    metrics = {"reward": 0.5, "kl": None}
    line = {"step": number, "num_steps": 9, "metrics": metrics, "seconds": {"learn": 1.0}}
    append(folder / "metrics.jsonl", stage=stage, **line)


def at_work(folder: Path) -> None:
    (folder / "driver.lock").write_text(f"process {os.getpid()} on {socket.gethostname()} since now\n")


def status(folder: Path, found: RunStatus) -> None:
    before = folder / "status.json"
    before.write_text(json.dumps(found.as_dict()))
    os.utime(before, ns=(0, status_times.pop()))


status_times = list(range(10**9, 0, -(10**6)))
"""Of one status after the other, so that each is seen to be new."""


def test_a_pipeline_is_told_from_its_last_step_on(tmp_path: Path) -> None:
    at_work(tmp_path)
    for number in (1, 2):
        step(tmp_path / "sft", "sft", number)
    for number in (1, 2, 3):
        step(tmp_path / "ppo", "ppo", number)
    append(tmp_path / "events.jsonl", event="stage_began", stage="ppo")
    sample = ResponseSample("Who?", "Me.", 0.25)
    now = at_step(NO_STATUS, 3)
    assert now.step is not None
    workers = {"rollout": (WorkerStatus("rollout-0", "h", "sampling"), WorkerStatus("rollout-1", "h", "idle"))}
    status(tmp_path, replace(now, step=replace(now.step, sample=sample), workers=workers, last_message="old"))

    heard = Noting()
    feed = FolderFeed(tmp_path, heard)
    assert feed.poll() is None
    assert heard.take() == [
        ("workers", {"rollout": {"sampling": 1, "idle": 1}}),
        ("began", "ppo"),
        ("step", "ppo", 3, sample),
    ]
    assert feed.poll() is None and heard.take() == []

    step(tmp_path / "ppo", "ppo", 4)
    status(tmp_path, replace(now, last_message="step 4: KL 9.00 is above 5"))
    assert feed.poll() is None
    assert heard.take() == [
        ("message", "ppo", "step 4: KL 9.00 is above 5"),
        ("workers", {}),
        ("step", "ppo", 4, None),
    ]

    step(tmp_path / "ppo", "ppo", 5)
    append(
        tmp_path / "events.jsonl", event="stage_ended", stage="ppo", summary={"seconds": 3.5, "peak_memory_gib": 1.0}
    )
    append(tmp_path / "events.jsonl", event="stage_began", stage="dpo")
    step(tmp_path / "dpo", "dpo", 1)
    assert feed.poll() is None
    assert heard.take() == [("step", "ppo", 5, None), ("ended", "ppo", 3.5), ("began", "dpo"), ("step", "dpo", 1, None)]

    append(tmp_path / "events.jsonl", event="failed", why="out of memory")
    assert feed.poll() == FollowedEnding("failed", "out of memory")


def test_a_stage_that_came_and_went_between_two_looks_is_told_in_its_order(tmp_path: Path) -> None:
    at_work(tmp_path)
    append(tmp_path / "events.jsonl", event="started")
    heard = Noting()
    feed = FolderFeed(tmp_path, heard)
    assert feed.poll() is None and heard.take() == []
    for stage in ("sft", "dpo"):
        append(tmp_path / "events.jsonl", event="stage_began", stage=stage)
        step(tmp_path / stage, stage, 1)
        summary = {"seconds": 3.5, "peak_memory_gib": 1.0}
        append(tmp_path / "events.jsonl", event="stage_ended", stage=stage, summary=summary)
    assert feed.poll() is None
    assert heard.take() == [
        *(("began", "sft"), ("step", "sft", 1, None), ("ended", "sft", 3.5)),
        *(("began", "dpo"), ("step", "dpo", 1, None), ("ended", "dpo", 3.5)),
    ]


def test_of_a_driver_elsewhere_that_is_silent_nothing_is_known(tmp_path: Path) -> None:
    lock = tmp_path / "driver.lock"
    lock.write_text("process 7 on no-such-host since then\n")
    feed = FolderFeed(tmp_path, Noting())
    assert feed.poll() is None
    hour_ago = time.time() - 3600
    os.utime(lock, (hour_ago, hour_ago))
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/rollout-0.log").touch()  # Of a worker's.
    assert feed.poll() is None
    os.utime(tmp_path / "logs/rollout-0.log", (hour_ago, hour_ago))
    assert feed.poll() == FollowedEnding(
        "unknown",
        f"process 7 on no-such-host since then has its lock, and has written nothing for 60 min: look there whether it "
        f"is at work; where it is gone, delete {lock}",
    )


@pytest.mark.parametrize("event", ["stopped", "failed", "refused"])
def test_a_run_that_has_ended_is_told_as_such_at_once(event: str, tmp_path: Path) -> None:
    append(tmp_path / "events.jsonl", event="started")
    append(tmp_path / "events.jsonl", event=event, why="so it is")
    assert FolderFeed(tmp_path, Noting()).poll() == FollowedEnding(event, "so it is")


def test_a_resumed_run_has_not_ended_though_its_record_still_ends_so(tmp_path: Path) -> None:
    append(tmp_path / "events.jsonl", event="stopped", why="asked to")
    at_work(tmp_path)
    assert FolderFeed(tmp_path, Noting()).poll() is None


def test_a_finished_run_has_a_summary(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("{}")
    assert FolderFeed(tmp_path, Noting()).poll() == FollowedEnding("finished", "")


def test_a_driver_that_was_killed_leaves_no_event(tmp_path: Path) -> None:
    at_work(tmp_path)
    feed = FolderFeed(tmp_path, Noting())
    assert feed.poll() is None
    (tmp_path / "driver.lock").write_text(f"process {2**22 + 1} on {socket.gethostname()} since then\n")
    assert feed.poll() == FollowedEnding("stopped", "its driver is gone")


def test_damaged_files_are_passed_over(tmp_path: Path) -> None:
    at_work(tmp_path)
    (tmp_path / "status.json").write_text('{"workers": 3, "sample": [], "stage": 7}')
    (tmp_path / "events.jsonl").write_text('[]\n{"event": 3}\n')
    (tmp_path / "metrics.jsonl").write_text('{"step": "one"}\n')
    heard = Noting()
    assert FolderFeed(tmp_path, heard).poll() is None
    assert heard.take() == [("workers", {})]


def test_through_the_control_actor_what_is_new_in_the_status_is_told() -> None:
    first, second = at_step(NO_STATUS, 1), replace(at_step(NO_STATUS, 2), last_message="KL 9.00 is above 5")
    answers: list[RunStatus | None] = [None, NO_STATUS, first, first, second]

    def ask() -> RunStatus | None:
        if not answers:
            raise NotRunningError("align: no run of this name is running")
        return answers.pop(0)

    heard = Noting()
    feed = ControlFeed(ask, heard)
    assert [feed.poll() for _ in range(5)] == [None] * 5
    assert [note for note in heard.take() if note[0] != "workers"] == [
        ("began", "ppo"),
        ("step", "ppo", 1, None),
        ("step", "ppo", 2, None),
        ("message", "ppo", "KL 9.00 is above 5"),
    ]
    assert feed.poll() == FollowedEnding("ended", "align: no run of this name is running")


def test_a_run_that_is_not_there_cannot_be_followed() -> None:
    def ask() -> RunStatus | None:
        raise NotRunningError("align: no run of this name is running")

    with pytest.raises(NotRunningError):
        ControlFeed(ask, Noting()).poll()
