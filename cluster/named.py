"""What the settings of a run name: files and models by absolute paths, and models by what is in them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from configs.disk import write_whole
from configs.errors import UserError
from configs.schema import Run
from models.digest import digests_of_model
from models.source import absolute

C = TypeVar("C", bound=Run)

MODELS_FILE = "models.json"
"""In a run's folder: name of a model -> file -> its digest when the run began."""

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


def check_models(config: Run, folder: Path) -> None:
    """Compare the models with those that a run which has begun there began with; what has been added is passed over.

    Raises:
        UserError: some are not the same any more.
    """
    path = folder / MODELS_FILE
    try:
        began_with = json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise UserError(
            f"{path}: expected digests as JSON: {error}; delete it to go on with the models as they are"
        ) from error
    for key, name in _models(config):
        if name not in began_with:
            continue
        files = digests_of_model(name, key)
        changed = sorted(file for file, digest in began_with[name].items() if files.get(file) != digest)
        if changed:
            raise UserError(
                f"{key}={name}: this is not the model that the run began with: {', '.join(changed)} changed. Put it "
                f"back, or start a new run"
            )


def note_models(config: Run, folder: Path) -> None:
    """Keep the digests of the models that a run begins with; those that are known stay."""
    path = folder / MODELS_FILE
    if not path.exists():
        digests = {name: digests_of_model(name, key) for key, name in _models(config)}
        write_whole(path, json.dumps(digests, indent=2) + "\n")


def _models(config: Run) -> Iterator[tuple[str, str]]:
    """(setting, name) of each model that there is already."""
    for name, section in config:
        for key in MODEL_KEYS.get(name, ()):
            value = getattr(section, key, None)
            for model in value if isinstance(value, tuple) else (value,):
                if isinstance(model, str):
                    yield f"{name}.{key}", model
