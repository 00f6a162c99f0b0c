"""Weights on disk: saved, kept in a cache, and looked at without reading them, by the header of a safetensors file."""

import fcntl
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open

from plumbob.configs.paths import cached_folder
from plumbob.core.atomic_files import flush_all, make_folder, open_to_readers, replaced
from plumbob.core.errors import UserError
from plumbob.core.hidden_package import hidden
from plumbob.core.outside import from_outside, read_json_object
from plumbob.models.files.finite_weights import first_not_finite

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
COPY_AGAIN = "copy the model again, or save it with model.save_pretrained(FOLDER)"


NOT_FINITE = "has numbers that are NaN or infinite, as after training that diverged; give weights from before it"


def give_folder(name: str) -> str:
    """What to do about a model that cannot be read."""
    return COPY_AGAIN if Path(name).is_dir() else "give a folder, or a name on the hub where this machine reaches it"


def save_model(model: Any, tokenizer: Any, folder: Path, **options: Any) -> None:
    """A plain Hugging Face folder, whose weights whoever may read its other files may read too.

    Args:
        options: of transformers' `save_pretrained`.
    """
    # Saving would import it, for more than a second, to see whether the model is in one of its engines.
    with hidden("deepspeed"):
        model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        open_to_readers(path)


def cached_model(name: str, write: Callable[[Path], None]) -> Path:
    """A model's folder in the cache, made where it is not there yet.

    It stands there whole or not at all; a second process that asks for it waits for the first.

    Args:
        name: the folder's, which says all that it is made from.
        write: fills an empty folder.
    """
    folder = cached_folder(name)
    if not folder.exists():
        make_folder(folder.parent)
        with (folder.parent / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                with replaced(folder) as partial:
                    write(partial)
                    flush_all(partial)
    return folder


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
        raise UserError(f"{key}={folder}: has no weights, neither {WHOLE} nor {INDEX}; {COPY_AGAIN}")


def check_file(path: Path, key: str) -> None:
    """Look at a safetensors file.

    Raises:
        UserError: it is missing, has no header, is not as long as its header says, or has numbers that are not finite
            (of a file beyond `finite_weights.MAX_READ`, at the beginning of a tensor).
    """
    what = f"{key}={path.parent}: {path.name}"
    if path.exists() and not os.access(path, os.R_OK):
        raise UserError(f"{what} may not be read by you; ask its owner to let you, such as by chmod a+r")
    with from_outside(f"{what} is damaged or missing", COPY_AGAIN), safe_open(path, framework="pt"):
        broken = first_not_finite(path)
    if broken is not None:
        raise UserError(f"{what}: {broken} {NOT_FINITE}")


def num_stored(path: Path) -> int:
    """Numbers in a safetensors file, by its header. Raises UserError when it cannot be read."""
    with from_outside(f"{path}: cannot be read", COPY_AGAIN), safe_open(path, framework="pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 - it is no mapping
    return sum(math.prod(shape) for shape in shapes)


def _shards(index: Path, key: str) -> list[str]:
    """Files beside the index."""
    what = f"{key}={index.parent}: {index.name} does not name the shards"
    content = read_json_object(index, what, COPY_AGAIN)
    with from_outside(what, COPY_AGAIN):
        names = sorted(set(content["weight_map"].values()))
        outside = [name for name in names if Path(name).name != name]
        if outside:
            raise ValueError(f"{outside[0]} is no file beside it")
        return names
