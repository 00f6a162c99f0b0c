"""A run that continues in another process is watched, given more workers, and stopped, by commands."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from plumbob.cluster.calls import wait_until
from plumbob.console.cli import main
from plumbob.driver.run_folder.folder import EVENTS_FILE, TRACE_FILE
from plumbob.trainers.metrics.json_lines import read_json_lines
from tests.support.small_run import WORKERS, Left, Stages, settings

BOUND_S = 240.0


@pytest.fixture(scope="module")
def going_on(stage: Stages, ppo_settings: dict[str, object]) -> Iterator[subprocess.Popen[str]]:
    """PPO of more steps than anybody will wait for."""
    stage.close()
    many = {"name": "steered", "online.num_steps": 10_000}
    command = [sys.executable, "-m", "plumbob.console.cli", "run", "--trace", "ppo"]
    command += settings(stage.cluster, WORKERS, ppo_settings, many)
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    yield run
    run.kill()
    run.wait()


def asked(capfd: pytest.CaptureFixture[str], *command: str) -> dict[str, Any]:
    capfd.readouterr()
    assert main([*command]) == 0
    content: dict[str, Any] = json.loads(capfd.readouterr().out)
    return content


def test_a_run_is_watched_scaled_and_stopped(
    going_on: subprocess.Popen[str], stage: Stages, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = str(stage.storage / "steered")
    found: dict[str, Any] = {}

    def comes_to(is_so: Callable[[dict[str, Any]], bool]) -> bool:
        def look() -> bool:
            nonlocal found
            if main(["status", folder, "--json"]) != 0:
                going_on.kill()
                pytest.fail(going_on.communicate()[0])
            found = json.loads(capfd.readouterr().out.splitlines()[-1])
            return bool(found["running"]) and is_so(found)

        return wait_until(look, BOUND_S)

    assert wait_until(lambda: (stage.storage / "steered/cluster.json").exists() or going_on.poll() is not None, BOUND_S)
    assert comes_to(lambda status: status.get("step", 0) >= 1)
    assert [len(found["workers"][role]) for role in ("learner", "rollout", "scorer")] == [1, 1, 1]
    # What the first step learnt from: 8 responses of the version before it.
    first = found["answers"]["versions"]["0"]
    assert (first["issued"], first["trained"], first["dropped"]) == (8, 8, {})

    assert main(["scale", folder, "--rollout-workers", "2"]) == 0
    assert "1 become 2" in capfd.readouterr().out

    def two_have_worked(status: dict[str, Any]) -> bool:
        return len(status["workers"]["rollout"]) == 2 and all(row["answers"] for row in status["workers"]["rollout"])

    assert comes_to(two_have_worked)
    assert main(["scale", folder, "--rollout-workers", "1"]) == 0
    assert comes_to(lambda status: len(status["workers"]["rollout"]) == 1)
    # 4 CPUs, a quarter each for three workers: far from enough for 100.
    assert main(["scale", folder, "--rollout-workers", "100"]) == 2
    assert "there are 1 now, and for 99 more" in capfd.readouterr().err

    assert main(["status", "steered", "--address", stage.address]) == 0
    said = capfd.readouterr().out
    assert said.startswith("running; ppo: step ") and "responses by the policy version" in said
    assert main(["stop", folder]) == 0
    said = going_on.communicate(timeout=BOUND_S)[0]
    assert going_on.returncode == 130, said
    assert "the run was asked to stop" in said and f"plumbob resume {folder}" in said


def test_a_stopped_run_says_where_it_stopped(
    going_on: subprocess.Popen[str], stage: Stages, capfd: pytest.CaptureFixture[str]
) -> None:
    left = Left(stage.storage / "steered")
    status = asked(capfd, "status", str(left.folder), "--json")
    assert not status["running"]
    # It stopped where nothing was lost: the last step that was made has its checkpoint.
    last = left.metrics[-1]["step"]
    assert status["step"] == last
    assert left.last_checkpoint.name == f"step-{last:06d}"
    assert main(["scale", str(left.folder), "--rollout-workers", "2"]) == 2
    assert "this run is not running" in capfd.readouterr().err


def test_what_people_asked_of_a_run_is_recorded_with_who_they_are(
    going_on: subprocess.Popen[str], stage: Stages
) -> None:
    events = read_json_lines(stage.storage / "steered" / EVENTS_FILE)
    steered = [(event["what"], event["by"]["pid"]) for event in events if event["event"] == "steered"]
    asked = ("scale --rollout-workers 2", "scale --rollout-workers 1", "stop")
    assert steered == [(what, os.getpid()) for what in asked]  # Who asks for what cannot be is not in it.
    assert events[0]["event"] == "started" and events[0]["by"]["pid"] == going_on.pid
    assert (events[-1]["event"], events[-1]["why"]) == ("stopped", "the run was asked to stop")
    # The second rollout worker; nobody was lost.
    assert [event["worker"].partition("-")[0] for event in events if event["event"] == "joined"].count("rollout") == 2
    assert not {"lost", "replaced"} & {event["event"] for event in events}


def test_a_trace_shows_who_was_at_what(going_on: subprocess.Popen[str], stage: Stages) -> None:
    events = json.loads((stage.storage / "steered" / TRACE_FILE).read_text())
    rows = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    done = {(rows[event["tid"]].partition("-")[0], event["name"]) for event in events if event["ph"] == "X"}
    phases = ("sample", "score", "logprobs", "learn", "commit", "publish")
    assert {("driver", phase) for phase in phases} <= done
    work = (("rollout", "sampling"), ("scorer", "scoring"), ("learner", "updating"), ("learner", "computing log-probs"))
    assert set(work) <= done
    # Whoever samples in a step does so within that step's phase.
    (sampled, *_) = [event for event in events if event.get("name") == "sampling" and event["ph"] == "X"]
    (phase, *_) = [event for event in events if event.get("name") == "sample"]
    assert phase["ts"] <= sampled["ts"] and sampled["ts"] + sampled["dur"] <= phase["ts"] + phase["dur"]
