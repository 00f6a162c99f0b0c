"""Weights on disk, looked at without reading them: a safetensors file's header tells whether the file is whole."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from plumbob.core.errors import UserError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FIX = "copy the model again, or save it with model.save_pretrained(FOLDER)"


def check_weights(folder: Path, key: str) -> None:
    """Look at a model's weights: one file, or the shards that its index names. `key` is the setting that named it.

    Raises:
        UserError: there are none, one is missing, or one is damaged.
    """
    if (folder / WHOLE).is_file():
        check_file(folder / WHOLE, key)
    elif (folder / INDEX).is_file():
        for name in _shards(folder / INDEX, key):
            check_file(folder / name, key)
    elif not any(folder.glob("*.safetensors")):
        raise UserError(f"{key}={folder}: has no weights, neither {WHOLE} nor {INDEX}; {FIX}")


def check_file(path: Path, key: str) -> None:
    """Raises UserError when a safetensors file is missing, has no header, or is not as long as its header says."""
    try:
        with safe_open(path, framework="pt"):
            return
    except (OSError, SafetensorError) as error:
        raise UserError(f"{key}={path.parent}: {path.name} is damaged or missing: {error}; {FIX}") from error


def _shards(index: Path, key: str) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{key}={index.parent}: {index.name} does not name the shards: {error!r}; {FIX}") from error
