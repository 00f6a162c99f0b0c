"""What a run reports and is asked between its session and people."""

import json
import os
import pickle
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import plumbob.driver.run_control
from plumbob.cluster.control_actor import ControlRequests, PersonsRequest
from plumbob.cluster.failures import WorkerLost
from plumbob.cluster.resources import ResourceNeed
from plumbob.cluster.run_status import MESSAGE_CHARS, RunStatus, WorkerStatus
from plumbob.cluster.session import Session
from plumbob.configs.resolved_copy import RESOLVED_FILE
from plumbob.configs.settings.workers import ClusterSettings
from plumbob.core.errors import RunFailed, RunPreempted, RunStopped, UserError
from plumbob.core.process_ends.stop_signals import stop_signals
from plumbob.driver.run_control import RunControl, controlled_run
from plumbob.driver.run_folder.folder import EVENTS_FILE, STATUS_FILE
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.trainers.learner.checkpoint import Checkpoint
from plumbob.trainers.metrics.json_lines import read_json_lines
from plumbob.trainers.metrics.step_record import StepRecord
from plumbob.trainers.online.collection.sample_ledger import NUM_VERSIONS, SampleLedger
from tests.support.recording_listener import Watching

CLUSTER = ClusterSettings(address="auto", wait_s=60, max_restarts=1)
LEARNERS = ResourceNeed("learner", "learner.num_workers", 3, 1.0, 0.0, 0.0, spread=False)
ROLLOUTS = ResourceNeed("rollout", "rollout.num_workers", 4, 1.0, 0.0, 0.0, spread=True)


class Client:
    """Stands where the named actor's client does: what it is to answer is set by the test."""

    requests = ControlRequests()

    def __init__(self, name: str, notify: object, wait_s: float) -> None:
        self.reports: list[RunStatus] = []

    def exchange(self, status: object, is_scalable: bool) -> ControlRequests:
        assert callable(status)
        self.reports.append(status())
        return self.requests

    def close(self) -> None: ...


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """Not connected to a Ray: of workers it has none."""
    monkeypatch.setattr(plumbob.driver.run_control, "ControlClient", Client)
    monkeypatch.setattr(plumbob.driver.run_control, "draining_nodes", frozenset)
    monkeypatch.setattr(plumbob.driver.run_control, "addresses", lambda nodes: [f"10.0.0.{node[1]}" for node in nodes])
    monkeypatch.setattr(Session, "admit", lambda self, needs: None)
    return Session(CLUSTER, tmp_path / "logs", Watching())


@pytest.mark.parametrize(("has_begun", "wait_s"), [(False, 0.0), (True, 60.0)])
def test_only_who_resumes_a_run_waits_for_its_name(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_begun: bool, wait_s: float
) -> None:
    asked: list[tuple[str, float]] = []

    def refuse(name: str, notify: object, wait_s: float) -> None:
        asked.append((name, wait_s))
        raise UserError("a run of this name is running")

    monkeypatch.setattr(plumbob.driver.run_control, "ControlClient", refuse)
    if has_begun:
        (tmp_path / RESOLVED_FILE).touch()
    with pytest.raises(UserError), controlled_run(session, "one", (), tmp_path, Watching()):
        pass
    assert asked == [("one", wait_s)]


def test_a_run_stops_when_it_was_asked_to(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with controlled_run(session, "one", (), tmp_path, Watching()):
        session.begin_work()
        monkeypatch.setattr(Client, "requests", ControlRequests(stop=True))
        session.poll_control()  # Where much would be lost it does not end.
        with pytest.raises(RunStopped, match="the run was asked to stop"):
            session.begin_work()
    session.begin_work()  # The next run on the session was not.


def test_a_checkpoint_that_was_asked_for_is_wanted_until_one_stands(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = {"user": "ann", "host": "desk", "pid": 7}
    with controlled_run(session, "one", (), tmp_path, Watching()) as control:
        assert not control.is_save_requested()
        monkeypatch.setattr(Client, "requests", ControlRequests(save=True, made=(PersonsRequest("save", me),)))
        assert control.is_save_requested()
        monkeypatch.setattr(Client, "requests", ControlRequests())
        assert control.is_save_requested()
        control.saved(Checkpoint(tmp_path / "step-000002", 2, {}))
        assert not control.is_save_requested()
    events = read_json_lines(tmp_path / EVENTS_FILE)
    steered = [(event["what"], event["by"]) for event in events if event["event"] == "steered"]
    assert steered == [("save", me)]


def test_a_signal_ends_a_run_where_a_person_would(session: Session, tmp_path: Path) -> None:
    with (
        pytest.raises(RunPreempted, match="SIGTERM"),
        stop_signals.handled("noted"),
        controlled_run(session, "one", (), tmp_path, Watching()),
    ):
        session.begin_work()  # From here on a step is worth ending.
        os.kill(os.getpid(), signal.SIGTERM)
        session.poll_control()
        session.begin_work()
        raise AssertionError("continued")


def test_a_draining_host_is_reported_once(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watching = Watching()
    with controlled_run(session, "one", (), tmp_path, watching):
        for draining in ({"n2"}, {"n2"}, {"n2", "n3"}):
            monkeypatch.setattr(Client, "requests", ControlRequests(draining=frozenset(draining)))
            session.poll_control()
    rule = "workers there finish their work, others start elsewhere"
    assert watching.notes == [("cluster", f"draining 10.0.0.2: {rule}"), ("cluster", f"draining 10.0.0.3: {rule}")]


def test_a_slot_may_cost_as_many_workers_as_the_settings_say(session: Session, tmp_path: Path) -> None:
    control = RunControl(session, "one", (), tmp_path, Watching())
    control.worker_lost(WorkerLost("rollout-1 died"), "rollout 0")
    with pytest.raises(RunFailed, match=r"number 2 .* cluster\.max_restarts=1"):
        control.worker_lost(WorkerLost("rollout-2 died"), "rollout 0")
    control.listener.stepped(StepRecord("ppo", 1, 9, {}, {}))
    control.worker_lost(WorkerLost("rollout-3 died"), "rollout 0")
    assert control.status().workers_lost == 3


def test_only_a_run_that_lost_a_worker_has_one_replaced(session: Session, tmp_path: Path) -> None:
    """An earlier run on the session may have lost the one in whose place another is."""
    control = RunControl(session, "one", (), tmp_path, Watching())
    control.worker_joined("rollout", "rollout-1", "10.0.0.1", is_replacement=True)
    control.worker_lost(WorkerLost("rollout-1 died"), "rollout 0")
    control.worker_joined("scorer", "scorer-2", "10.0.0.1", is_replacement=False)
    control.worker_joined("rollout", "rollout-3", "10.0.0.2", is_replacement=True)
    told = [(event["event"], event.get("worker"), event.get("on")) for event in read_json_lines(tmp_path / EVENTS_FILE)]
    assert told == [
        ("joined", "rollout-1", "10.0.0.1"),
        ("lost", None, None),
        ("joined", "scorer-2", "10.0.0.1"),
        ("replaced", "rollout-3", "10.0.0.2"),
    ]


def test_a_step_is_recorded_once_and_when_a_checkpoint_has_it(session: Session, tmp_path: Path) -> None:
    """Of SFT the first checkpoint is of step 2; then the learners are lost after step 4, and resume from there."""
    control = RunControl(session, "one", (), tmp_path, Watching())

    def recorded() -> list[tuple[str, str, int | None]]:
        lines = read_json_lines(tmp_path / EVENTS_FILE)
        return [(line["event"], line["stage"], line.get("step")) for line in lines]

    def step(stage: str, *numbers: int) -> None:
        for number in numbers:
            control.listener.stepped(StepRecord(stage, number, 9, {}, {}))

    control.listener.stage_began("sft")
    step("sft", 1, 2)
    began: list[tuple[str, str, int | None]] = [("stage_began", "sft", None)]
    assert recorded() == began
    control.saved(Checkpoint(tmp_path / "step-2", 2, {}))
    first = [("step", "sft", 1), ("step", "sft", 2), ("saved", "sft", 2)]
    assert recorded() == began + first
    step("sft", 3, 4, 3, 4, 5)
    control.saved(Checkpoint(tmp_path / "step-5", 5, {}))
    then = [("step", "sft", 3), ("step", "sft", 4), ("step", "sft", 5), ("saved", "sft", 5)]
    assert recorded() == began + first + then
    # Of a stage that began after it; and one that a person asked to be saved twice stands once.
    step("sft", 6)
    control.listener.stage_began("dpo")
    step("dpo", 1)
    control.saved(Checkpoint(tmp_path / "step-1", 1, {}))
    control.saved(Checkpoint(tmp_path / "step-1", 1, {}))
    last = [("stage_began", "dpo", None), ("step", "dpo", 1), ("saved", "dpo", 1), ("saved", "dpo", 1)]
    assert recorded() == began + first + then + last


def test_all_steps_of_a_checkpoint_are_one_write_of_short_lines(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand steps and their checkpoint wait for the disk once, as the checkpoint alone did."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    control = RunControl(session, "one", (), tmp_path, Watching())
    for number in range(1, 1001):
        control.listener.stepped(StepRecord("sft", number, 1000, {f"metric_{name}": 0.5 for name in range(60)}, {}))
    before = len(synced)  # Of the status, which is replaced at every step.
    control.saved(Checkpoint(tmp_path / "step-1000", 1000, {}))
    lines = (tmp_path / EVENTS_FILE).read_text().splitlines()
    assert (len(synced) - before, len(lines)) == (1, 1001) and max(map(len, lines[:-1])) < 250


@pytest.mark.parametrize("num_steps", [1_000, 100_000])
def test_a_status_is_as_small_after_many_steps_as_after_few(session: Session, tmp_path: Path, num_steps: int) -> None:
    """What is written, and what is sent to the control actor, at every step of a long run with two hundred workers."""
    control = RunControl(session, "one", (LEARNERS, ROLLOUTS), tmp_path, Watching())
    control.ledger = ledger_after(num_steps)
    rows = tuple(WorkerStatus(f"rollout-{number}", "10.0.0.100", "sampling", num_steps) for number in range(200))
    metrics = {f"a_metric_of_some_length_{number}": 1 / 3 for number in range(60)}
    control.listener.step = StepRecord("ppo", num_steps, num_steps, metrics, {"sample": 1 / 3})
    control.notify("x" * 100_000)
    status = replace(control.status(), workers={"rollout": rows})
    assert len(json.dumps(status.as_dict())) < 64 * 1024
    assert len(pickle.dumps(status)) < 64 * 1024
    # The newest: what is in flight belongs to them.
    assert status.responses is not None
    versions = list(status.responses.versions)
    assert versions == list(range(num_steps - NUM_VERSIONS, num_steps))
    assert status.responses.older.trained == num_steps - NUM_VERSIONS
    assert status.responses.versions[versions[-1]].trained == 1


def ledger_after(num_steps: int) -> SampleLedger:
    """One response a version, issued, finished, scored and trained on."""
    ledger, ids = SampleLedger(), np.zeros(1, np.int32)
    for version in range(num_steps):
        ledger.published(version)
        request = SampleRequest("p", f"g{version}", 0, 0, "", ids)
        rollout = Rollout(request, "stop", "", ids, np.zeros(1, np.float32), ids, np.ones(1, np.bool_), "rollout-0")
        ledger.issued([request])
        for happens in (ledger.finished, ledger.scored, ledger.trained):
            happens([rollout])
        ledger.take_final()  # As at every commit.
    return ledger


def test_a_status_says_where_the_run_stands_and_is_written_at_every_step(session: Session, tmp_path: Path) -> None:
    with controlled_run(session, "one", (LEARNERS, ROLLOUTS), tmp_path, Watching()) as control:
        before = control.status()
        assert (before.stage, before.step, before.rollout, before.responses) == (None, None, None, None)
        # Learners come and go together; of the others one is enough.
        assert before.minimum_needs == (LEARNERS, replace(ROLLOUTS, count=1))
        control.listener.stage_began("sft")
        assert (control.status().stage, control.status().step) == ("sft", None)
        record = StepRecord("sft", 3, 9, {"loss": 0.5}, {"learn": 2.0})
        control.notify("x" * 9_000)
        control.listener.stepped(record)
        written = json.loads((tmp_path / STATUS_FILE).read_text())
    # The keys are what scripts and older runs' files have.
    assert list(written) == [
        *("time", "stage", "step", "num_steps", "metrics", "seconds", "last_message", "workers", "rollout", "least"),
        *("autoscale", "workers_lost", "answers"),
    ]
    assert (written["stage"], written["step"], written["num_steps"]) == ("sft", 3, 9)
    found = RunStatus.from_dict(written)
    assert found.step == record and found.last_message == "x" * MESSAGE_CHARS
    assert found == replace(control.status(), time=found.time)
