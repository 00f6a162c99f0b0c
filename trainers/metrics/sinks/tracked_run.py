"""A run as it is described to whoever shows it elsewhere (`TrackedRun`): its name, its settings, and its id there."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbob.configs.resume_rules import flat
from plumbob.core.disk_errors import replace_text

TRACKERS_FOLDER = "trackers"
"""In a run's folder: what the sinks that write elsewhere keep there."""


@dataclass(frozen=True)
class TrackedRun:
    """The run, and where ids are kept, so that a resumed run continues the one that it began elsewhere.

    Attributes:
        kind: such as "ppo" or "pipeline".
        folder: of the run.
        settings: as JSON has them.
    """

    name: str
    kind: str
    folder: Path
    settings: Mapping[str, Any]

    def tracker_folder(self) -> Path:
        """Where a sink may keep files of its own."""
        path = self.folder / TRACKERS_FOLDER
        path.mkdir(exist_ok=True)
        return path

    def kept_id(self, kind: str, begin: Callable[[], str]) -> tuple[str, bool]:
        """The run's id in a kind of sink, and whether it had one: what `begin` gives, the first time."""
        path = self.tracker_folder() / f"{kind}.json"
        if path.exists():
            return str(json.loads(path.read_text(encoding="utf-8"))["id"]), True
        found = begin()
        replace_text(path, json.dumps({"id": found}) + "\n")
        return found, False

    def flat_settings(self) -> dict[str, Any]:
        """Dotted key -> value."""
        return flat(self.settings)
