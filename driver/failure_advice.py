"""What a failed run tells the user: what is left of it, whether resuming can help, and how."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plumbob.configs.resolved_copy import RESOLVED_FILE
from plumbob.core.disk_errors import StorageFailed, storage_reason
from plumbob.core.errors import NotFinite, RunFailed, RunStopped
from plumbob.reward.scorer import ScoreError
from plumbob.trainers.learner.checkpoint import Checkpoints


@contextmanager
def with_failure_advice(folder: Path) -> Iterator[None]:
    """A RunFailed from inside says, below its message, what is left in the run's folder and how to continue.

    It stays the same error, with all that it carries. An error of the disk becomes a StorageFailed that says how
    much space is free.
    """
    try:
        yield
    except RunFailed as error:
        space = f"; {free_space(folder)}" if isinstance(error, StorageFailed) else ""
        error.args = (f"{error}{space}\n{how_to_continue(folder, error)}",)
        raise
    except Exception as error:
        reason = storage_reason(error)
        if reason is None:
            raise
        failed = StorageFailed(f"{reason}; {free_space(folder)}")
        failed.args = (f"{failed}\n{how_to_continue(folder, failed)}",)
        raise failed from error


def free_space(folder: Path) -> str:
    """Of the file system that the folder is on, or would be."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return f"{shutil.disk_usage(nearest).free / 2**20:,.1f} MiB are free in {folder}"


def how_to_continue(folder: Path, error: RunFailed) -> str:
    """The last good checkpoint, and the command that resumes from it, where that can help."""
    named = sorted(folder.glob("**/checkpoints/latest"), key=lambda path: path.stat().st_mtime)
    logs = f"what it printed is in {folder / 'logs'}"
    if not named and isinstance(error, RunStopped):
        has_begun = (folder / RESOLVED_FILE).exists()
        return f"resume with: plumbob resume {folder}" if has_begun else "nothing was computed, and its name is free"
    if not named:
        free = "" if (folder / RESOLVED_FILE).exists() else ", and its name is free"
        return f"no checkpoint had been made{free}; {logs}"
    try:
        checkpoint = Checkpoints(named[-1].parent, 1).newest(lambda _: None)
    except RunFailed:
        checkpoint = None
    if checkpoint is None:
        return f"no checkpoint in {named[-1].parent} is whole; {logs}"
    last = f"the last good checkpoint is {checkpoint.folder}"
    match error:
        case ScoreError():
            return (
                f"{last}; resuming would give the same score again: correct the reward, or take the prompt out of the "
                f"data, and begin a new run"
            )
        case NotFinite():
            return (
                f"{last}; resuming would do the same again: begin a new run with a lower learning_rate, or without the "
                f"data that is named"
            )
        case StorageFailed():
            return f"{last}; when the disk can be written again, resume with: plumbob resume {folder}"
        case _:
            return f"{last}; resume with: plumbob resume {folder}"
