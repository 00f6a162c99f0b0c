"""A disk that really runs full: the last checkpoint stays the newest, nothing half-made stays, the file is named."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from plumbob.core.disk_errors import naming_file, naming_final, storage_reason
from plumbob.rollout.journal_files import step_file
from plumbob.trainers.learner.checkpoint import LATEST_FILE, Checkpoints, Files, on_disk
from plumbob.trainers.learner.learner_protocol import UpdateResult
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.sinks.jsonl import read_metrics
from plumbob.trainers.metrics.step_record import StepRecord
from tests.support.folder_names import names
from tests.support.full_disk import fill, small_disk
from tests.support.online_world import FakeOnlineWorld, recorded, settings
from tests.support.recording_listener import Watching

FULL = "No space left on device"


@pytest.fixture
def disk() -> Iterator[Path]:
    with small_disk("1m") as folder:
        yield folder


def weights(num_bytes: int, folder: Path) -> Files:
    save_file({"weights": torch.zeros(num_bytes, dtype=torch.uint8)}, folder / "weights.safetensors")
    return on_disk(folder, ["weights.safetensors"])


@pytest.mark.parametrize("is_rust", [True, False])
def test_a_checkpoint_that_does_not_fit(disk: Path, is_rust: bool) -> None:
    checkpoints = Checkpoints(disk / "checkpoints", keep=2)

    def write(folder: Path) -> Files:
        if is_rust:
            return weights(600_000, folder)
        (folder / "weights.bin").write_bytes(bytes(600_000))
        return on_disk(folder, ["weights.bin"])

    checkpoints.commit(1, write, {})
    # A second of 600 KB beside the first is more than 1 MiB.
    with pytest.raises(Exception, match=FULL) as failed:
        checkpoints.commit(2, write, {})
    reason = storage_reason(failed.value)
    assert reason == (FULL if is_rust else f"{disk}/checkpoints/step-000002: {FULL}")
    assert names(disk / "checkpoints") == [LATEST_FILE, "step-000001"]
    found = checkpoints.newest(pytest.fail)
    assert found is not None and found.step == 1
    # With room, the same continues.
    Checkpoints(disk / "checkpoints", keep=1).commit(1, lambda folder: {}, {})
    checkpoints.commit(2, write, {})
    assert (disk / "checkpoints" / LATEST_FILE).read_text() == "step-000002\n"


def test_metrics_that_do_not_fit(disk: Path) -> None:
    steps = [StepRecord("sft", step, 3, {"loss": 0.5}, {}) for step in (1, 2, 3)]
    with pytest.raises(OSError, match=FULL) as failed, MetricsLog(disk, Watching()) as log:
        log.append(steps[0])
        taken = fill(disk)
        for step in range(2, 2000):  # What is left of the file's last block takes some.
            log.append(StepRecord("sft", step, 3, {"loss": 0.5}, {}))
    named = str(storage_reason(failed.value))
    assert named.startswith(str(disk)) and named.endswith(FULL)
    taken.unlink()
    assert read_metrics(disk)[0] == steps[0]
    with MetricsLog(disk, Watching()) as log:
        log.truncate_after(1)
        log.append(steps[1])
    assert read_metrics(disk) == steps[:2]


def test_a_journal_that_does_not_fit(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learns, taken = FakeOnlineWorld.update, []

    def update(world: FakeOnlineWorld, *arguments: Any) -> UpdateResult:
        if world.version == 1:  # The second step.
            taken.append(fill(disk))
        return learns(world, *arguments)

    monkeypatch.setattr(FakeOnlineWorld, "update", update)
    with pytest.raises(OSError, match=FULL) as failed:
        recorded(settings(num_steps=3), disk)
    assert storage_reason(failed.value) == f"{step_file(disk / 'rollouts', 2)}: {FULL}"
    assert names(disk / "rollouts") == ["step-000001.parquet"]
    assert names(disk / "checkpoints") == [LATEST_FILE, "step-000001"]
    # A resume without room says so before it changes anything.
    with pytest.raises(OSError, match=FULL) as failed:
        recorded(settings(num_steps=3), disk)
    assert storage_reason(failed.value) == f"{disk / 'metrics.jsonl'}: {FULL}"
    assert names(disk) == ["checkpoints", "filling", "metrics.jsonl", "rollouts", "sample_ledger.jsonl", "tensorboard"]
    taken.pop().unlink()
    monkeypatch.undo()
    recorded(settings(num_steps=3), disk)
    assert [record.step for record in read_metrics(disk)] == [1, 2, 3]


def test_an_error_in_a_folder_being_filled_names_the_one_that_it_becomes(tmp_path: Path) -> None:
    partial, final = tmp_path / ".policy.ab12.partial", tmp_path / "policy"
    full = (errno.ENOSPC, os.strerror(errno.ENOSPC))
    for error, named in (
        (OSError(*full, str(partial / "model" / "weights")), final / "model" / "weights"),
        (OSError(*full), final),
        (OSError(*full, str(tmp_path / "log")), tmp_path / "log"),
    ):
        with pytest.raises(OSError, match=FULL) as failed, naming_final(partial, final):
            raise error
        assert storage_reason(failed.value) == f"{named}: {FULL}"
    with pytest.raises(FileNotFoundError, match="ab12"), naming_final(partial, final):
        partial.read_text()


def test_what_is_no_disks_error_is_told_apart(tmp_path: Path) -> None:
    for error in (ConnectionResetError(errno.ECONNRESET, "reset"), FileNotFoundError(errno.ENOENT, "none", "x")):
        assert storage_reason(error) is None
    assert storage_reason(ValueError("no space left on device")) is None
    assert storage_reason(Exception("cannot save: Permission denied (os error 13)")) is None
    assert storage_reason(Exception("cannot save (os error 5)")) == os.strerror(errno.EIO)
    with pytest.raises(FileNotFoundError) as missing, naming_file(tmp_path / "a"):
        (tmp_path / "b").read_text()
    assert missing.value.filename == str(tmp_path / "b")
