"""What a run's folder tells of the run at a glance: its kind, where it stands, its result, its size (ListedRun)."""

import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from plumbob.configs.renamed_keys import with_new_names
from plumbob.configs.resolved_copy import RESOLVED_FILE, configured_stage
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside, read_json_object
from plumbob.driver.run_folder.folder import EVENTS_FILE, LOGS_FOLDER, STATUS_FILE, SUMMARY_FILE
from plumbob.driver.run_folder.lock import LOCK_FILE

FolderState = Literal["running", "finished", "failed", "stopped", "unknown", "damaged"]

OWNER = re.compile(r"process (\d+) on (\S+) since")
"""What stands in the lock of a folder (`driver.run_folder.lock`)."""

SILENT_S = 1800.0
"""Without a word of it a driver on another host may be gone."""

WRITTEN_ALONG = (LOCK_FILE, STATUS_FILE, EVENTS_FILE, f"{LOGS_FOLDER}/*")
"""What a driver and its workers write all along."""

TAIL_BYTES = 16_384
"""Of the record of events, in which its last line is looked for."""


@dataclass(frozen=True)
class ListedRun:
    """Of one run, without asking anybody but its folder.

    Attributes:
        state: "stopped" of a run that can be resumed and did not say that it failed; "unknown" where its driver is on
            another host and has long been silent; "damaged" where its files cannot be read.
        why: what a run that failed or was stopped said last, what is not known or what is damaged; empty elsewhere.
        stage, step, num_steps: where it stands; None before the first.
        result: the part of the summary of the last stage that measured something; empty of a run that has none.
        num_bytes: all that is in the folder.
        changed: when something was last written there, in seconds since 1970.
    """

    folder: Path
    kind: str
    state: FolderState
    why: str
    stage: str | None
    step: int | None
    num_steps: int | None
    result: Mapping[str, Any]
    num_bytes: int
    changed: float

    def as_dict(self) -> dict[str, Any]:
        """As JSON for scripts."""
        return asdict(self) | {"folder": str(self.folder), "name": self.folder.name}


def runs_in(folder: Path) -> list[Path]:
    """The folders of runs in `folder`, and in those of its folders that are no runs themselves; in order of names.

    Raises:
        UserError: it cannot be looked into.
    """
    with from_outside(f"{folder}: cannot be looked into", "give a folder of runs that may be read"):
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder; give one that has runs in it")
        return list(_runs_below(folder, levels=2))


def _runs_below(folder: Path, levels: int) -> Iterator[Path]:
    for path in sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()):
        if (path / RESOLVED_FILE).is_file():
            yield path
        elif levels > 1:
            yield from _runs_below(path, levels - 1)


def listed_run(folder: Path) -> ListedRun:
    """Of the run in `folder`; never raises because of what stands in its files."""
    num_bytes, changed = _size(folder)
    try:
        resolved, status, summary = (_read(folder / name) for name in (RESOLVED_FILE, STATUS_FILE, SUMMARY_FILE))
        with from_outside(f"{folder}: its files are not as a run writes them"):
            kind = configured_stage(with_new_names(resolved["config"])) or str(resolved["config"]["kind"])
            stages = dict(summary.get("stages", {}))
            result = next((dict(stage) for stage in reversed(stages.values()) if _is_result(stage)), {})
            state, why = _state(folder, is_finished=bool(summary))
            stage, step, num_steps = status.get("stage"), status.get("step"), status.get("num_steps")
    except UserError as error:
        return ListedRun(folder, "", "damaged", str(error), None, None, None, {}, num_bytes, changed)
    return ListedRun(folder, kind, state, why, stage, step, num_steps, result, num_bytes, changed)


def driver_at_work(folder: Path) -> str | None:
    """Who has the folder's lock, as its file says; None where nobody has it, or on this host a process that is gone.

    The lock itself is not tried: a driver that begins meanwhile would find it taken.
    """
    try:
        owner = (folder / LOCK_FILE).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
    process = OWNER.match(owner)
    if process is None or process[2] != socket.gethostname():
        return owner or None
    try:
        os.kill(int(process[1]), 0)
    except ProcessLookupError:
        return None
    except (PermissionError, OverflowError):
        pass
    return owner


def silent_driver(folder: Path) -> str | None:
    """Why it is not known whether the driver that has the lock is at work; None where it is, or nobody has it.

    A process on another host cannot be asked. It writes at every step, and when workers begin or end something.
    """
    owner = driver_at_work(folder)
    process = None if owner is None else OWNER.match(owner)
    if owner is None or (process is not None and process[2] == socket.gethostname()):
        return None
    silent_s = time.time() - max((_changed(path) for name in WRITTEN_ALONG for path in folder.glob(name)), default=0.0)
    if silent_s < SILENT_S:
        return None
    return (
        f"{owner} has its lock, and has written nothing for {silent_s // 60:.0f} min: look there whether it is at "
        f"work; where it is gone, delete {folder / LOCK_FILE}"
    )


def last_event(folder: Path) -> dict[str, Any]:
    """The last whole line of the record of events; empty where there is none that can be read."""
    try:
        with (folder / EVENTS_FILE).open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - TAIL_BYTES, 0))
            *_, line, _torn = [b"", *file.read().split(b"\n")]
        content = json.loads(line)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _state(folder: Path, is_finished: bool) -> tuple[FolderState, str]:
    is_at_work, unclear = driver_at_work(folder) is not None, silent_driver(folder)
    if is_at_work and unclear is None:
        return "running", ""
    if is_finished:
        return "finished", ""
    if unclear is not None:
        return "unknown", unclear
    last = last_event(folder)
    why = str(last.get("why", ""))
    return ("failed", why) if last.get("event") == "failed" else ("stopped", why)


def _is_result(stage: object) -> bool:
    """Whether there is more than what it cost."""
    return isinstance(stage, dict) and bool(
        stage.keys() - {"seconds", "peak_memory_gib", "notes", "num_prompts", "energy"}
    )


def _changed(path: Path) -> float:
    """When it was written, in seconds since 1970; 0 of one that is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size(folder: Path) -> tuple[int, float]:
    """Bytes of all files below a folder, and when the newest of them was written."""
    num_bytes, changed = 0, 0.0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # A run at work replaces its files.
                found = os.lstat(f"{place}/{name}")
                num_bytes, changed = num_bytes + found.st_size, max(changed, found.st_mtime)
    return num_bytes, changed


def _read(path: Path) -> dict[str, Any]:
    """Nothing of a file that is not there."""
    return read_json_object(path, f"{path}: cannot be read") if path.exists() else {}
