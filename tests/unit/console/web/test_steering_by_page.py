"""What a page asks of a running run goes through the project's own command, in a process of its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.exceptions import HTTPException

from plumbob.console.web.steer_request import steer_command
from tests.support.finished_run import finished_run
from tests.support.served_runs import TOKEN, served

BEARING = {"X-Plumbob-Token": TOKEN}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"action": "stop"}, ["stop"]),
        ({"action": "save"}, ["save"]),
        ({"action": "scale", "rollout_workers": 3}, ["scale", "--rollout-workers", "3"]),
        ({"action": "leave", "host": "10.0.0.7"}, ["scale", "--leave", "10.0.0.7"]),
    ],
)
def test_a_request_is_a_command(asked: dict[str, Any], words: list[str]) -> None:
    assert steer_command(asked) == words


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"action": "scale"}, "rollout_workers"),
        ({"action": "scale", "rollout_workers": 0}, "rollout_workers"),
        ({"action": "scale", "rollout_workers": True}, "rollout_workers"),
        ({"action": "scale", "rollout_workers": "3; rm"}, "rollout_workers"),
        ({"action": "leave", "host": "--address=x"}, "host"),
        ({"action": "leave", "host": "a b"}, "host"),
        ({"action": "explode"}, "action"),
        ([], "action"),
    ],
)
def test_what_is_no_request_is_refused(asked: Any, complaint: str) -> None:
    with pytest.raises(HTTPException, match=complaint):
        steer_command(asked)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    root = tmp_path_factory.mktemp("runs")
    finished_run(root / "over", "ppo", {})
    with served(root) as client:
        yield client


def test_the_page_is_given_what_the_command_says(client: httpx.Client) -> None:
    answer = client.post("/api/runs/over/steer", json={"action": "stop"}, headers=BEARING, timeout=120)
    assert answer.status_code == 409
    assert "this run is finished" in answer.json()["error"] and "Traceback" not in answer.text


def test_a_command_that_ends_well_is_a_message(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the place of Python stands a program that says what it was asked."""
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\nshift 2\necho "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr("plumbob.console.web.steer_request.sys.executable", str(program))
    request = {"action": "scale", "rollout_workers": 3}
    answer = client.post("/api/runs/over/steer", json=request, headers=BEARING)
    assert answer.status_code == 200
    assert answer.json()["message"].startswith("scale --rollout-workers 3 /") and answer.json()["message"].endswith(
        "over"
    )


def test_a_command_that_takes_too_long_is_ended(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setattr("plumbob.console.web.steer_request.sys.executable", str(program))
    monkeypatch.setattr("plumbob.console.web.steer_request.STEER_S", 0.2)
    answer = client.post("/api/runs/over/steer", json={"action": "stop"}, headers=BEARING)
    assert answer.status_code == 504 and "did not answer" in answer.json()["error"]
