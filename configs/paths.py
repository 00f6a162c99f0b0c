"""Absolute paths of what the settings of a run name, so that any working folder finds them."""

from pathlib import Path
from typing import Any, TypeVar

from plumbob.configs.runs import Run

ADAPTER_CONFIG_FILE = "adapter_config.json"
"""PEFT's, by which the folder of an adapter is told from that of a full model."""

C = TypeVar("C", bound=Run)

MODEL_KEYS = {
    "policy": ("model", "baseline"),
    "reward": ("model", "ensemble"),
    "judge": ("model", "ensemble"),
    "calibration": ("policy",),
}
"""Section -> its keys that name models."""

FILE_KEYS = {
    "data": tuple(
        f"{side}{name}"
        for name in ("text", "demonstrations", "pairs", "rankings", "scores", "labelled", "prompts")
        for side in ("", "heldout_")
    ),
    "retention": ("text",),
    "replay": ("text",),
}
"""Section -> its keys that name files."""


def with_absolute_paths(config: C) -> C:
    """Folders of models and files of data by their absolute paths.

    A worker may be another host's, with a working folder of its own, and a run may be resumed from another folder.
    """
    changed: dict[str, Any] = {}
    for name, section in config:
        if section is not None and (name in MODEL_KEYS or name in FILE_KEYS):
            models = {key: _absolute(value) for key, value in section if key in MODEL_KEYS.get(name, ())}
            files = {key: _absolute_file(value) for key, value in section if key in FILE_KEYS.get(name, ())}
            changed[name] = section.model_copy(update=models | files)
    return config.model_copy(update=changed)


def _absolute(value: Any) -> Any:
    """Names of models made absolute, one or several; a model that is to be made new stays as it is."""
    match value:
        case str():
            return absolute(value)
        case tuple():
            return tuple(map(absolute, value))
        case _:
            return value


def _absolute_file(value: str | None) -> str | None:
    """A file, folder or pattern of files, whether it is there or not."""
    return None if value is None else str(Path(value).expanduser().absolute())


def absolute(base: str) -> str:
    """A folder by its absolute path, a hub name as it is."""
    folder = Path(base).expanduser()
    return str(folder.resolve()) if folder.is_dir() else base


def may_be_adapter(name: str) -> bool:
    """Whether a model's name is, or may be on another host, the folder of an adapter: hub names are full models.

    For what must be known before a model is opened, such as how many workers a run has.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return (folder / ADAPTER_CONFIG_FILE).exists()
    return folder.is_absolute() or name.startswith("package:")
