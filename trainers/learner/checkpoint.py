"""Checkpoints that are either whole or absent: written beside, flushed, then renamed, with a digest of each file."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbob.core.atomic_files import discard, flush, replaced
from plumbob.core.disk_errors import naming_file, replace_text
from plumbob.core.errors import RunFailed

STATE_FILE = "state.json"
LATEST_FILE = "latest"
DIGEST = "blake2b"

FOLDER_NAME = re.compile(r"step-(\d+)")

Files = Mapping[str, Mapping[str, Any]]
"""Name of a file -> its size in bytes and its digest."""

Write = Callable[[Path], Files]
"""Fills a folder, perhaps on another host; says what it wrote there once that is on the disk, as `on_disk` does."""


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


class DamagedError(Exception):
    """A checkpoint is not as it was written; the message names its folder, the file and what is wrong with it."""


class Checkpoints:
    """The checkpoints of one stage, below `folder`; the newest `keep` stay, and one that a commit protects.

    Args:
        saved: told of each that a commit has made.
    """

    def __init__(
        self, folder: Path, keep: int, saved: Callable[["Checkpoint"], None] = lambda checkpoint: None
    ) -> None:
        self.folder, self.keep, self._saved = folder, keep, saved

    def commit(self, step: int, write: Write, state: Mapping[str, Any], protected: int | None = None) -> Checkpoint:
        """Make the checkpoint of `step`: `write` fills a folder that nobody sees before it is complete.

        `latest` moves after the folder stands under its own name, so a death at any point leaves a whole one named; an
        error leaves nothing of the new one. Every attempt has a folder of its own: the writer of an earlier one, on a
        host that was given up for dead, may still be at it. The checkpoint of step `protected` stays however old it is,
        until a later commit protects another.

        Raises:
            RunFailed: a file that was written cannot be read here, or is not whole.
        """
        name = folder_name(step)
        final = self.folder / name
        discard(self.folder, "step-*")
        with naming_file(final), replaced(final) as staging:
            write_manifest(staging, step, state, write(staging))
        replace_text(self.folder / LATEST_FILE, name + "\n")
        self._prune(step, protected)
        checkpoint = Checkpoint(final, step, dict(state))
        self._saved(checkpoint)
        return checkpoint

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of that step, which an earlier commit made. RunFailed when it is not whole any more."""
        try:
            return read_checkpoint(self.folder / folder_name(step))
        except DamagedError as error:
            raise RunFailed(f"{error}; it holds the result") from error

    def newest(self, notify: Callable[[str], None]) -> Checkpoint | None:
        """The newest whole checkpoint; None when none has been made.

        Args:
            notify: told of each newer one that is passed over, with what is wrong with it.

        Raises:
            RunFailed: some were made, and none is whole.
        """
        damaged: list[str] = []
        for _, folder in sorted(self._folders().items(), reverse=True):
            try:
                found = read_checkpoint(folder)
            except DamagedError as error:
                damaged.append(str(error))
                continue
            for message in damaged:
                notify(f"{message}; going back to {found.folder.name}")
            return found
        if damaged:
            message = "\n".join(damaged)
            raise RunFailed(f"{message}\nno checkpoint is whole; to begin this stage anew, delete {self.folder}")
        return None

    def _folders(self) -> dict[int, Path]:
        """By step, in no order: names of more than six digits do not sort as their numbers do."""
        named = ((FOLDER_NAME.fullmatch(path.name), path) for path in self.folder.glob("step-*") if path.is_dir())
        return {int(match[1]): path for match, path in named if match}

    def _prune(self, step: int, protected: int | None) -> None:
        """Those past `step` were passed over as damaged, and are of steps that are made again."""
        folders = self._folders()
        kept = {*sorted(found for found in folders if found <= step)[-self.keep :], protected}
        for found, folder in folders.items():
            if found not in kept:
                shutil.rmtree(folder)


def folder_name(step: int) -> str:
    return f"step-{step:06d}"


def on_disk(folder: Path, names: Sequence[str]) -> Files:
    """Flush the files of these names, on the host that wrote them: another one's flush does not reach its cache."""
    with ThreadPoolExecutor(1) as digesting:  # While the disk is at work.
        digests = digesting.map(lambda name: digest_of(folder / name), names)
        for name in names:
            flush(folder / name)
        flush(folder)
        return {
            name: {"size": (folder / name).stat().st_size, DIGEST: digest}
            for name, digest in zip(names, digests, strict=True)
        }


def write_manifest(folder: Path, step: int, state: Mapping[str, Any], files: Files) -> None:
    """Add `state.json`, by which the files are known.

    Whoever wrote them says which they are: of what another host wrote, a listing of the folder may show a part.

    Raises:
        RunFailed: one cannot be read, or is not whole.
    """
    for name in sorted(files):
        try:
            with (folder / name).open("rb") as file:
                found = os.fstat(file.fileno()).st_size
        except OSError as error:
            why = f"cannot be read by the driver: {error.strerror}"
            raise RunFailed(f"{folder}: {name} was written there and {why}") from error
        if found != files[name]["size"]:
            raise RunFailed(f"{folder}: of {name}, {files[name]['size']} bytes were written; the driver sees {found}")
    content = {"step": step, "files": {name: dict(files[name]) for name in sorted(files)}, "state": dict(state)}
    (folder / STATE_FILE).write_text(json.dumps({**content, DIGEST: digest_of_content(content)}, indent=2) + "\n")
    flush(folder / STATE_FILE)
    flush(folder)


def read_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in the folder, every file compared with what was written. Raises DamagedError."""
    try:
        content = json.loads((folder / STATE_FILE).read_text())
        is_own = content.pop(DIGEST) == digest_of_content(content)
    except OSError as error:
        raise DamagedError(f"{folder} is damaged: {STATE_FILE}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{folder} is damaged: {STATE_FILE} is not whole") from error
    if not is_own:
        raise DamagedError(f"{folder} is damaged: {STATE_FILE} is not what was written")
    for name, written in content["files"].items():
        wrong = difference_from(folder / name, written)
        if wrong is not None:
            raise DamagedError(f"{folder} is damaged: {name}{wrong}")
    return Checkpoint(folder, content["step"], content["state"])


def difference_from(path: Path, written: Mapping[str, Any]) -> str | None:
    """How a file differs from what was written, to follow its name; None when it does not."""
    try:
        size = path.stat().st_size
        if size != written["size"]:
            return f" has {size} bytes, {written['size']} were written"
        return None if digest_of(path) == written[DIGEST] else f" is not what was written, by its {DIGEST}"
    except OSError as error:
        return f": {error.strerror}"


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, DIGEST).hexdigest()


def digest_of_content(content: Mapping[str, Any]) -> str:
    """The same of what was written and of what is read: JSON keeps the order of keys, and every float exactly."""
    return hashlib.new(DIGEST, json.dumps(content).encode()).hexdigest()
