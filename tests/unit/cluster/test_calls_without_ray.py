"""What is shown of a wait while it lasts."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from plumbob.cluster.calls import Actor, Call, gather
from plumbob.core.activities import activities


def test_whoever_shows_the_run_is_told_whom_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    def wait(pending: list[str], **_: object) -> tuple[list[str], list[str]]:
        shown.extend(activity.doing for activity in activities.now())
        return pending[:1], pending[1:]

    monkeypatch.setattr("plumbob.cluster.calls.ray", SimpleNamespace(wait=wait, get=str.upper))
    learners = [Call(Actor(f"learner-{rank}", None, Path("log")), f"result {rank}") for rank in range(2)]
    assert gather(learners, "loading the model", 1.0) == ["RESULT 0", "RESULT 1"]
    assert gather([Call(Actor("rollout-2", None, Path("log")), "a")], "starting its engine", 1.0) == ["A"]
    assert shown == ["2 learners: loading the model"] * 2 + ["rollout worker: starting its engine"]
    assert activities.now() == ()
