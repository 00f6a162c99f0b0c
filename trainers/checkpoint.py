"""Checkpoints that are either whole or absent: written beside, flushed, then renamed."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import RunFailed

STATE_FILE = "state.json"
LATEST_FILE = "latest"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint.

    Attributes:
        folder: holds `state.json` and whatever the learner wrote.
        step: steps done when it was made.
        state: what the loop needs beside the learner's tensors: cursor, KL coefficient.
    """

    folder: Path
    step: int
    state: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one stage, below `folder`; the newest `keep` stay, and one that a commit protects."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def commit(
        self, step: int, write: Callable[[Path], None], state: Mapping[str, Any], protected: int | None = None
    ) -> Path:
        """Make the checkpoint of `step`: `write` fills a folder that nobody sees before it is complete.

        `latest` moves after the folder stands under its own name, so a death at any point leaves a whole one named.
        The checkpoint of step `protected` stays however old it is, until a later commit protects another.
        """
        name = folder_name(step)
        staging, final = self.folder / f".{name}.partial", self.folder / name
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        write(staging)
        sizes = {path.name: path.stat().st_size for path in staging.iterdir()}
        content = {"step": step, "files": sizes, "state": dict(state)}
        (staging / STATE_FILE).write_text(json.dumps(content, indent=2) + "\n")
        for path in staging.iterdir():
            flush(path)
        shutil.rmtree(final, ignore_errors=True)
        staging.rename(final)
        flush(self.folder)
        replace_text(self.folder / LATEST_FILE, name + "\n")
        self._prune(protected)
        return final

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of that step, which an earlier commit made. RunFailed when it is not whole any more."""
        folder = self.folder / folder_name(step)
        checkpoint = read_checkpoint(folder)
        if checkpoint is None:
            raise RunFailed(f"{folder}: this checkpoint is missing or damaged, and it holds the result")
        return checkpoint

    def newest(self) -> Checkpoint | None:
        """The newest whole checkpoint, or None. One with a missing or short file is passed over."""
        for folder in reversed(self._folders()):
            checkpoint = read_checkpoint(folder)
            if checkpoint is not None:
                return checkpoint
        return None

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*") if path.is_dir())

    def _prune(self, protected: int | None) -> None:
        for folder in self._folders()[: -self.keep]:
            if protected is None or folder.name != folder_name(protected):
                shutil.rmtree(folder)


def folder_name(step: int) -> str:
    return f"step-{step:06d}"


def read_checkpoint(folder: Path) -> Checkpoint | None:
    try:
        content = json.loads((folder / STATE_FILE).read_text())
        if any((folder / name).stat().st_size != size for name, size in content["files"].items()):
            return None
    except (OSError, ValueError):
        return None
    return Checkpoint(folder, content["step"], content["state"])


def replace_text(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old text or the new, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    flush(partial)
    partial.replace(path)


def flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
