"""Settings and events as others may read them: without paths of the machine and addresses of others."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PLACE = re.compile(r"://|[\s=:,;\"'(\[]/[^\s/]+/")
"""In a value: an address, or a folder behind something else."""

LEFT_OUT = "left out: it names a place"

OF_A_PLACE = ("cluster", "sinks", "storage", "energy")
"""Settings of where a run was and who was told of it, which say nothing of what it made."""


def shown_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings without those of a place, and without places in the others."""
    shown: dict[str, Any] = without_places({name: value for name, value in config.items() if name not in OF_A_PLACE})
    return shown


def without_places(value: Any) -> Any:
    """The same, of each absolute path its name alone; nothing of an address, or of a text with such a path."""
    match value:
        case str() if value.startswith("/"):
            return Path(value).name
        case str() if PLACE.search(value):
            return LEFT_OUT
        case Mapping():
            kept: dict[str, Any] = {}
            for name, item in value.items():  # Files of a mixture are names too, and may be called alike.
                short = without_places(name)
                kept[f"{short} ({len(kept) + 1})" if short in kept else short] = without_places(item)
            return kept
        case list() | tuple():
            return [without_places(item) for item in value]
        case _:
            return value
