"""The list of runs and the overview of one, whatever state their folders are in."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from plumbob.console.web.run_files.run_facts import RunFacts
from plumbob.console.web.run_files.run_index import RunIndex
from tests.support.finished_run import finished_pipeline, finished_run, write_metrics
from tests.support.served_runs import asked, served

STOPPED = {"time": "2026-11-30T21:41:36.226Z", "event": "stopped", "why": "the run was asked to stop"}

NO_OBJECTS = b'{"stages": 3, "config": 3, "workers": 3, "least": 3, "metrics": 3, "seconds": 3, "stage": 3}\n'
"""JSON, but with a number wherever a run would write more."""


def line_of(root: Path, run_id: str) -> dict[str, Any]:
    return RunFacts().of(RunIndex(root).find(run_id))


def test_runs_in_folders_of_folders(client: httpx.Client) -> None:
    runs = {run["id"]: run for run in asked(client, "/api/runs")["runs"]}
    assert set(runs) == {"toy", "nested~ppo"}
    online = runs["nested~ppo"]
    assert (online["name"], online["kind"], online["state"], online["stage"]) == ("ppo", "ppo", "finished", "ppo")
    assert (online["step"], online["num_steps"], online["seconds"], online["alarms"]) == (30, 30, 589.0, 1)
    # One learner of 2 CPUs and two rollout workers of half a CPU and a GPU, for 589 seconds.
    assert online["cpu_hours"] == pytest.approx(3 * 589 / 3600) and online["gpu_hours"] == pytest.approx(2 * 589 / 3600)
    assert runs["toy"]["cpu_hours"] is None and runs["toy"]["damaged"] is None
    stages = {stage["name"]: stage for stage in runs["toy"]["stages"]}
    assert stages["ppo"] == {"name": "ppo", "id": "toy~ppo", "step": 30, "num_steps": 30, "is_finished": True}


def test_of_a_pipeline_the_newest_stage_with_steps_is_shown(client: httpx.Client) -> None:
    assert {record["stage"] for record in asked(client, "/api/runs/toy/metrics")["records"]} == {"dpo"}


def test_a_stage_is_asked_for_by_an_id_of_its_own(client: httpx.Client) -> None:
    assert asked(client, "/api/runs/toy~ppo")["id"] == "toy"
    assert client.get("/api/runs/toy~data").status_code == 404


def test_stages_stand_in_the_order_that_the_run_recorded(tmp_path: Path) -> None:
    """Whatever a copy made of the files' times; twice began the stage that a resumed run was at."""
    run = finished_pipeline(tmp_path / "toy")
    ended = [*(path.name for path in (run / name for name in ("sft", "reward", "ppo", "dpo")) if path.is_dir())]
    for age, name in enumerate(ended):
        os.utime(run / name / "metrics.jsonl", (1e9 - age, 1e9 - age))
    folders = RunIndex(tmp_path).find("toy").stage_folders()
    assert [name for name in folders if name in ended] == ended[::-1]
    events = [{"event": "stage_began", "stage": name} for name in (*ended, ended[1])]
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    assert RunIndex(tmp_path).find("toy").stage_folders()[: len(ended)] == ended


def test_the_overview_has_findings_notes_and_names(client: httpx.Client) -> None:
    found = asked(client, "/api/runs/nested~ppo")
    (finding,) = found["findings"]
    assert finding | {"rows": None} == {
        **{"stage": "ppo", "step": 7, "name": "kl", "message": "KL 9.00 is above 5", "kind": "alarm", "rows": None}
    }
    assert found["notes"] == [{"stage": "ppo", "message": "12 rows skipped"}]
    assert found["versions"] == {"torch": "2.13"} and found["config"]["seed"] == 3
    assert found["metric_names"]["ppo"]["kl"] == {
        **{"title": "KL from the reference", "unit": "nats per response", "is_share": False}
    }


def test_alarms_of_a_run_that_is_not_finished_are_found_where_they_began(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", "ppo", {})
    (run / "summary.json").unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    for step in (4, 5, 30):
        record = json.loads(lines[step - 1])
        record["metrics"]["alarm_kl"] = 1.0
        lines[step - 1] = json.dumps(record)
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (run / "driver.log").write_text("2026-11-30T21:41:36.226Z ppo: step 4: KL 9.00 is above 5\n")
    assert line_of(tmp_path, "run")["alarms"] == 1
    with served(tmp_path) as client:
        (finding,) = asked(client, "/api/runs/run")["findings"]
    assert (finding["step"], finding["name"], finding["message"]) == (4, "kl", "KL 9.00 is above 5")


def test_a_run_is_running_while_its_driver_lives(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", "ppo", {})
    owner = f"process {os.getpid()} on {socket.gethostname()} since 2026-11-30 21:41:36\n"
    (run / "driver.lock").write_text(owner)
    found = line_of(tmp_path, "run")
    assert (found["state"], found["why"]) == ("running", None)
    (run / "driver.lock").write_text(owner.replace(str(os.getpid()), "4000000000"))
    assert line_of(tmp_path, "run")["state"] == "finished"  # It has left its summary.
    (run / "summary.json").unlink()
    found = line_of(tmp_path, "run")
    assert found["state"] == "stopped" and "died" in found["why"]


def test_why_a_run_was_stopped(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", "ppo", {})
    (run / "summary.json").unlink()
    assert "without a word" in line_of(tmp_path, "run")["why"]
    (run / "events.jsonl").write_text(json.dumps(STOPPED) + "\n")
    assert line_of(tmp_path, "run")["why"] == "the run was asked to stop"


def test_what_is_left_is_told_by_the_last_steps(tmp_path: Path) -> None:
    """A step every 4 s, and 6 of 10 done as the line was written: 16 s are left."""
    run = finished_run(tmp_path / "run", "ppo", {})
    (run / "driver.lock").write_text(f"process {os.getpid()} on {socket.gethostname()} since now\n")
    step = {"stage": "ppo", "num_steps": 10, "metrics": {"kl": 1.5}, "seconds": {"learn": 3.0}}
    lines = [json.dumps(step | {"step": number, "time": 100 + 4.0 * number}) for number in (4, 5, 6)]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    found = line_of(tmp_path, "run")
    assert 14 < found["seconds_left"] <= 16 and found["kl"] == 1.5


def test_an_unchanged_run_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import plumbob.console.web.run_files.run_facts as run_facts

    finished_run(tmp_path / "run", "ppo", {})
    read: list[str] = []
    reading = run_facts._facts
    monkeypatch.setattr(
        run_facts, "_facts", lambda location, *rest: read.append(location.id) or reading(location, *rest)
    )
    facts, location = RunFacts(), RunIndex(tmp_path).find("run")
    assert facts.of(location)["step"] == 30
    facts.of(location)
    assert read == ["run"]
    write_metrics(tmp_path / "run", "ppo", 31)
    assert facts.of(location)["step"] == 31 and read == ["run", "run"]


@pytest.mark.parametrize("damage", [b"", b"[]\n", b"\xff\xfe\n", b'{"a":' * 5000 + b"\n", NO_OBJECTS], ids=len)
def test_damaged_files_are_said_and_end_nothing(tmp_path: Path, damage: bytes) -> None:
    """Each of a run's files in turn."""
    names = (
        "resolved.json",
        "summary.json",
        "status.json",
        "metrics.jsonl",
        "events.jsonl",
        "driver.log",
        "trace.json",
    )
    for name in names:
        run = finished_run(tmp_path / name, "ppo", {})
        (run / "status.json").write_text("{}")
        (run / "events.jsonl").write_text(json.dumps(STOPPED) + "\n")
        (run / name).write_bytes(damage)
    with served(tmp_path) as client:
        assert len(asked(client, "/api/runs")["runs"]) == len(names)
        for name in names:
            for path in ("", "/metrics", "/events", "/config", "/timeline", "/logs", "/logs/merged", "/rollouts"):
                asked(client, f"/api/runs/{name}{path}")


@pytest.mark.parametrize("name", ["resolved.json", "summary.json", "status.json"])
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    run = finished_run(tmp_path / "run", "ppo", {})
    (run / name).write_text("[1, 2")
    assert line_of(tmp_path, "run")["damaged"] == f"{name} cannot be read"


def test_one_run_is_a_folder_of_runs_too(tmp_path: Path) -> None:
    finished_run(tmp_path / "alone", "ppo", {})
    assert list(RunIndex(tmp_path / "alone").locations()) == ["alone"]
