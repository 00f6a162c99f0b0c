"""What a failed run tells the user, and that the error stays what it is."""

import errno
import re
from pathlib import Path

import pytest

from plumbob.cluster.failures import LearnersLost, WorkerLost
from plumbob.configs.resolved_copy import RESOLVED_FILE
from plumbob.core.disk_errors import StorageFailed
from plumbob.core.errors import NotFinite, RunFailed, RunPreempted, RunStopped
from plumbob.driver.failure_advice import how_to_continue, with_failure_advice
from plumbob.reward.scorer import ScoreError
from plumbob.trainers.learner.checkpoint import Checkpoints, Files, on_disk


def write_nothing(folder: Path) -> Files:
    (folder / "w").touch()
    return on_disk(folder, ["w"])


def checkpointed(folder: Path, *steps: int) -> Path:
    """A run's folder with checkpoints of these steps."""
    for step in steps:
        Checkpoints(folder / "checkpoints", 9).commit(step, write_nothing, {})
    return folder


def test_a_failed_run_is_told_to_resume_only_where_that_can_help(tmp_path: Path) -> None:
    failed = "no checkpoint had been made, and its name is free; what it printed is in "
    assert how_to_continue(tmp_path, RunFailed("a worker died")).startswith(failed)
    (tmp_path / RESOLVED_FILE).touch()  # It had begun, by what it left, before this driver did.
    assert "no checkpoint had been made; what" in how_to_continue(tmp_path, RunFailed("a worker died"))
    checkpointed(tmp_path, 2, 3)
    last = f"the last good checkpoint is {tmp_path / 'checkpoints/step-000003'}; "
    assert how_to_continue(tmp_path, RunFailed("a worker died")) == f"{last}resume with: plumbob resume {tmp_path}"
    advice = how_to_continue(tmp_path, NotFinite("the policy's loss is nan"))
    assert "step-000003" in advice and "lower learning_rate" in advice and "plumbob resume" not in advice
    # A lower learning rate does not correct a reward that is NaN.
    assert how_to_continue(tmp_path, ScoreError("a score is not finite")) == (
        f"{last}resuming would give the same score again: correct the reward, or take the prompt out of the data, and "
        f"begin a new run"
    )
    # `latest` names one that is damaged by now.
    (tmp_path / "checkpoints/step-000003/w").write_text("other")
    assert "step-000002; resume with" in how_to_continue(tmp_path, RunFailed("a worker died"))
    (tmp_path / "checkpoints/step-000002/w").unlink()
    assert f"no checkpoint in {tmp_path / 'checkpoints'} is whole" in how_to_continue(tmp_path, RunFailed("it died"))


def test_a_stopped_run_is_resumed_where_it_has_begun_and_else_its_name_is_free(tmp_path: Path) -> None:
    for error in (RunPreempted("SIGTERM"), RunStopped("asked to")):
        assert how_to_continue(tmp_path / "free", error) == "nothing was computed, and its name is free"
    (tmp_path / RESOLVED_FILE).touch()  # Resumed, and stopped again while it booted.
    assert how_to_continue(tmp_path, RunPreempted("SIGTERM")) == f"resume with: plumbob resume {tmp_path}"
    checkpointed(tmp_path, 2)
    last = f"the last good checkpoint is {tmp_path / 'checkpoints/step-000002'}; "
    assert how_to_continue(tmp_path, RunPreempted("SIGTERM")) == f"{last}resume with: plumbob resume {tmp_path}"


def test_a_full_disk_ends_a_run_with_one_message(tmp_path: Path) -> None:
    checkpointed(tmp_path, 4)
    for error in (
        OSError(errno.ENOSPC, "full", "metrics.jsonl"),
        StorageFailed("metrics.jsonl: No space left on device"),
    ):
        with pytest.raises(StorageFailed) as failed, with_failure_advice(tmp_path):
            raise error
        what, what_next = str(failed.value).splitlines()
        assert re.fullmatch(rf"metrics\.jsonl: No space left on device; [0-9,]+\.\d MiB are free in {tmp_path}", what)
        assert what_next == (
            f"the last good checkpoint is {tmp_path / 'checkpoints/step-000004'}; when the disk can be written again, "
            f"resume with: plumbob resume {tmp_path}"
        )
    with pytest.raises(ConnectionResetError), with_failure_advice(tmp_path):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


@pytest.mark.parametrize(
    ("error", "attribute", "value"),
    [
        (NotFinite("the loss is nan", rows=(2, 5)), "rows", (2, 5)),
        (ScoreError("a score is nan", rows=(1,)), "rows", (1,)),
        (WorkerLost("rollout-1 died", oom_killed="rollout-1"), "oom_killed", "rollout-1"),
        (LearnersLost("learner-0 died", oom_killed="learner-0"), "oom_killed", "learner-0"),
    ],
)
def test_an_error_keeps_what_it_carries(tmp_path: Path, error: RunFailed, attribute: str, value: object) -> None:
    message = str(error)
    with pytest.raises(RunFailed) as failed, with_failure_advice(tmp_path):
        raise error
    assert type(failed.value) is type(error) and getattr(failed.value, attribute) == value
    free = "no checkpoint had been made, and its name is free"
    assert str(failed.value) == f"{message}\n{free}; what it printed is in {tmp_path / 'logs'}"
