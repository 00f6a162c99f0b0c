"""A record of events in which nearly all lines are steps: what the pages read of it, and how much JSON that is."""

import json
from pathlib import Path
from typing import Any

import pytest

from plumbob.console.web.run_files import run_content
from plumbob.console.web.run_files.run_content import MAX_GROWN_BYTES
from plumbob.console.web.run_files.run_index import RunIndex
from plumbob.core.stamped_lines import utc_now
from plumbob.driver.run_folder.event_log import EventLog
from plumbob.driver.run_folder.step_events import DoneStep
from tests.support.finished_run import finished_pipeline
from tests.support.served_runs import asked, served

NUM_STEPS = 100_000


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100,000 steps of SFT, saved at every 200th, and after them a stage of PPO, as its driver records them."""
    run = finished_pipeline(tmp_path_factory.mktemp("runs") / "toy")
    log, when = EventLog(run), utc_now()
    log.record("stage_began", stage="sft")
    for number in range(0, NUM_STEPS, 200):
        steps = [DoneStep("sft", step, when) for step in range(number + 1, number + 201)]
        log.record_steps(steps, "saved", stage="sft", step=number + 200)
    log.record("stage_began", stage="ppo")
    log.record("published", stage="ppo", version=1)
    return run


def test_the_steps_are_more_than_one_reading(pipeline: Path) -> None:
    assert (pipeline / "events.jsonl").stat().st_size > MAX_GROWN_BYTES


def test_events_are_given_without_steps_and_none_of_those_is_parsed(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []
    loads = json.loads

    def counting(line: bytes, **options: Any) -> Any:
        parsed.append(line)
        return loads(line, **options)

    found, cursor, more = [], "", True
    with served(pipeline.parent) as client:
        monkeypatch.setattr(run_content.json, "loads", counting)
        while more:
            answer = client.get("/api/runs/toy/events", params={"after": cursor} if cursor else {})
            content = loads(answer.content)
            cursor, more = content["cursor"], content["more"]
            found += content["events"]
    kinds = [event["event"] for event in found]
    assert kinds == ["stage_began", *["saved"] * (NUM_STEPS // 200), "stage_began", "published"]
    assert sum(b'"event": "step"' in line[:80] for line in parsed if isinstance(line, bytes)) == 0


def test_a_stage_that_began_after_them_is_found(pipeline: Path) -> None:
    folders = RunIndex(pipeline.parent).find("toy").stage_folders()
    assert folders[:2] == ["sft", "ppo"]


def test_a_version_that_was_published_after_them_is_on_the_timeline(pipeline: Path) -> None:
    with served(pipeline.parent) as client:
        found = asked(client, "/api/runs/toy/timeline", stage="ppo")
    assert [one["version"] for one in found["published"]] == [1]
