"""Which runs are below the folder that is served, and which files of each may be read (`RunIndex`, `RunLocation`)."""

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException

from plumbob.configs.resolved_copy import RESOLVED_FILE
from plumbob.console.web.run_files.run_content import json_lines, lines_with, text_at
from plumbob.driver.run_folder.folder import EVENTS_FILE, SUMMARY_FILE
from plumbob.trainers.metrics.sinks.jsonl import METRICS_FILE

SEPARATOR = "~"
"""Stands in a run's id where its path has a slash."""

MAX_DEPTH = 4
MAX_FOLDERS = 20_000
MAX_RUNS = 2_000
FRESH_S = 1.0
"""How long a listing of the folders holds."""


@dataclass(frozen=True)
class RunLocation:
    """A run below the folder that is served.

    Attributes:
        root: the served folder, resolved: nothing outside it is read.
        folder: the run's.
        id: by which pages name it.
    """

    root: Path
    folder: Path
    id: str

    def file(self, *parts: str) -> Path | None:
        """A regular file of the run; None where there is none, or a link leads out of the served folder."""
        return self._within(self.folder.joinpath(*parts))

    def shared_file(self, name: str) -> Path | None:
        """A regular file beside the runs, in the served folder itself."""
        return self._within(self.root / name)

    def _within(self, path: Path) -> Path | None:
        try:
            found = path.resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            return None
        return found if found.is_relative_to(self.root) and found.is_file() else None

    def listing(self, *parts: str) -> list[Path]:
        """What is in a folder of the run, by name; nothing where there is none, or a link leads out."""
        path = self.folder.joinpath(*parts)
        try:
            found = path.resolve(strict=True)
            return sorted(found.iterdir()) if found.is_relative_to(self.root) else []
        except (OSError, RuntimeError, ValueError):
            return []

    def stage_folders(self) -> list[str]:
        """Names of the folders of stages, in the order in which they began; "" alone where the run is one stage."""
        if self.file(METRICS_FILE) is not None:
            return [""]
        found, began = [], self._stages_begun()
        for path in self.listing():
            file = None if path.name.startswith(".") else self.file(path.name, METRICS_FILE)
            if file is not None or (path.is_dir() and self.file(path.name, SUMMARY_FILE) is not None):
                found.append((began.get(path.name, len(began)), _when_begun(path), path.name))
        return [name for *_, name in sorted(found)] or [""]

    def _stages_begun(self) -> dict[str, int]:
        """Stage -> its index in the order in which the run recorded that they began: copied files tell no times."""
        path = self.file(EVENTS_FILE)
        events, _ = json_lines([] if path is None else lines_with(path, b'"stage_began"'))
        names = [name for event in events if (name := text_at(event, "stage")) is not None]
        return {name: index for index, name in enumerate(dict.fromkeys(names))}

    def stage_folder(self, stage: str | None) -> str:
        """The name of a stage's folder: of none that is named the newest with steps, of the run's own the run's folder.

        Raises:
            HTTPException: there is no such stage.
        """
        folders = self.stage_folders()
        if not stage or folders == [""]:
            with_steps = [folder for folder in folders if self.file(folder, METRICS_FILE) is not None]
            return (with_steps or folders)[-1]
        if stage in folders:
            return stage
        raise HTTPException(404, f"the run has no stage {stage[:80]!r}; it has {', '.join(folders)}")


def _when_begun(folder: Path) -> float:
    """By the oldest of what a stage leaves: its folder changes until its end."""
    try:
        return min(entry.stat().st_mtime for entry in os.scandir(folder))
    except (OSError, ValueError):
        return 0.0


class RunIndex:
    """The runs below a folder, listed anew at most once a second; asked from several threads."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._locations: dict[str, RunLocation] = {}
        self._listed = -FRESH_S
        self._lock = threading.Lock()

    def locations(self) -> dict[str, RunLocation]:
        """Id -> run."""
        with self._lock:
            if time.monotonic() - self._listed >= FRESH_S:
                self._locations = {location.id: location for location in _found(self.root)}
                self._listed = time.monotonic()
            return self._locations

    def find(self, run_id: str) -> RunLocation:
        """The run of an id, or the pipeline that it names a stage of. Raises HTTPException where there is none."""
        locations = self.locations()
        if run_id in locations:
            return locations[run_id]
        pipeline, _, stage = run_id.rpartition(SEPARATOR)
        if pipeline in locations and stage in locations[pipeline].stage_folders():
            return locations[pipeline]
        raise HTTPException(404, f"there is no run {run_id[:80]!r} here: go back to the list of runs")


def _found(root: Path) -> Iterator[RunLocation]:
    """A run's own folders are not looked through: its stages are no runs of their own."""
    if _is_run(root):
        yield RunLocation(root, root, root.name or "run")
        return
    folders, num_looked_at, num_runs = [(root, 0)], 0, 0
    while folders and num_looked_at < MAX_FOLDERS and num_runs < MAX_RUNS:
        folder, depth = folders.pop()
        num_looked_at += 1
        if depth and _is_run(folder):
            num_runs += 1
            yield RunLocation(root, folder, str(folder.relative_to(root)).replace(os.sep, SEPARATOR))
        elif depth < MAX_DEPTH:
            folders += [(path, depth + 1) for path in _folders(folder)]


def _is_run(folder: Path) -> bool:
    """Whether a run began there; of one that failed early the events alone may be left."""
    return any((folder / name).is_file() for name in (RESOLVED_FILE, EVENTS_FILE))


def _folders(folder: Path) -> list[Path]:
    """The folders in one; links are not followed."""
    try:
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return []
    return [folder / name for name in sorted(names, reverse=True)]
