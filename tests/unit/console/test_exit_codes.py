"""With which status commands end, and what they say then."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from plumbob.console.cli import main
from plumbob.core.errors import RunFailed, RunPreempted, RunStopped
from plumbob.trainers.metrics.step_record import Listener
from tests.support.ended_run import PPO, SUMMARY, EndedRun, error_in, finish


def test_a_run_that_fails_ends_with_status_1(launched: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> None:
        raise RunFailed("the loss of step 3 is not finite; the last checkpoint is step 2")

    launched(run=fail)
    assert main(["run", *PPO]) == 1
    expected = "the run failed: the loss of step 3 is not finite; the last checkpoint is step 2"
    assert capsys.readouterr() == ("", f"plumbob: {expected}\n")
    assert main(["run", *PPO, "--json"]) == 1
    assert error_in(capsys.readouterr().out) == {"event": "error", "error": expected, "exit_code": 1}


def test_an_interrupted_run_says_how_to_go_on(
    launched: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(config: Any, listener: Listener) -> None:
        finish(config, listener)
        raise KeyboardInterrupt

    launched(run=interrupt, resume=lambda folder, listener, overrides: EndedRun(folder, {**SUMMARY, "name": overrides}))
    assert main(["run", *PPO, "name=mine"]) == 130
    advice = "resume from the last checkpoint with: plumbob resume runs/mine"
    assert capsys.readouterr().err.endswith(f"{advice}\n")
    assert main(["run", *PPO, "name=mine", "--json"]) == 130
    *_, told = capsys.readouterr().out.splitlines()
    assert json.loads(told) == {"event": "error", "error": f"interrupted; {advice}", "exit_code": 130}
    assert main(["resume", "mine"]) == 0
    assert main(["resume", "runs/mine", "--json", "rollout.num_workers=2"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]["name"] == ["rollout.num_workers=2"]


def test_a_preempted_run_ends_with_a_status_of_its_own_and_one_that_a_person_stopped_with_another(
    launched: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """75 is EX_TEMPFAIL of sysexits.h: a scheduler may start it again, and nobody wanted it to end."""
    for error, status in ((RunPreempted("SIGTERM"), 75), (RunStopped("asked to"), 130)):

        def stop(config: Any, listener: Listener, error: RunStopped = error) -> None:
            raise error

        launched(run=stop)
        assert main(["run", *PPO]) == status
        assert capsys.readouterr().err == f"plumbob: {error}\n"
        assert main(["run", *PPO, "--json"]) == status
        assert error_in(capsys.readouterr().out) == {"event": "error", "error": str(error), "exit_code": status}


def test_a_run_interrupted_before_it_left_anything_has_nothing_to_resume(
    launched: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    launched(run=interrupt)
    assert main(["run", *PPO]) == 130
    assert capsys.readouterr().err == "plumbob: interrupted\n"
