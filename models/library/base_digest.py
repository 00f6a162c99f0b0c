"""The digest by which an adapter knows its base, wherever that lies, and refuses another."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from plumbob.configs.paths import ADAPTER_CONFIG_FILE
from plumbob.configs.settings.models import ModelRef
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside
from plumbob.models.fingerprint import digests_of_model
from plumbob.models.library.library_entry import LibraryEntry
from plumbob.models.resolution import BASE_KEY, ModelSource, resolve_model

MODEL_CONFIG, WEIGHTS = "config.json", ".safetensors"


def digest_of_base(files: Mapping[str, str]) -> str | None:
    """32 hex digits of a model's config and weights, whatever else lies beside them; None where there are no weights.

    Args:
        files: file -> digest, as `digests_of_model` gives.
    """
    weights = {name: digest for name, digest in files.items() if WEIGHTS in name}
    if not weights or MODEL_CONFIG not in files:
        return None
    counted = sorted({**weights, MODEL_CONFIG: files[MODEL_CONFIG]}.items())
    return hashlib.blake2b(json.dumps(counted).encode(), digest_size=16).hexdigest()


def base_digest(base: str) -> str | None:
    """Of a folder; None of a hub name, whose files are not looked at. Raises UserError where they cannot be read."""
    with from_outside(f"{base}: no digest of the model can be taken", "give a folder that may be read"):
        return digest_of_base(digests_of_model(base, BASE_KEY))


def known_base(base: str) -> str:
    """What two names of one base have in common: its digest, or a hub name itself."""
    return base_digest(base) or base


def resolve_checked(ref: ModelRef) -> ModelSource:
    """As `resolve_model`; raises UserError also for an adapter of a library on another base than its own."""
    source = resolve_model(ref)
    if source.adapter is not None:
        _check_base(source.adapter, source.base)
    return source


def _check_base(adapter: Path, base: str) -> None:
    """An adapter of no library is passed over."""
    entry = LibraryEntry.read_beside(adapter)
    if entry is None or entry.base_digest is None:
        return
    found = base_digest(base)
    if found is not None and found != entry.base_digest:
        raise UserError(
            f"{adapter}: was trained on the base with the digest {entry.base_digest}, and {base} is another model, "
            f"with the digest {found}; where its own lies below a FOLDER, this finds it: plumbob adapters locate "
            f"{entry.name} --library {adapter.parent} --bases FOLDER"
        )


def find_base(digest: str, folders: Sequence[Path]) -> Path | None:
    """The first model of that digest in the folders and below; None where there is none."""
    for folder in folders:
        for model in _models_below(folder):
            with suppress(UserError):  # One that cannot be read is none that an adapter was trained on.
                if base_digest(str(model)) == digest:
                    return model.resolve()
    return None


def _models_below(folder: Path) -> Iterator[Path]:
    for place, below, files in os.walk(folder):
        below.sort()
        if MODEL_CONFIG in files and ADAPTER_CONFIG_FILE not in files and any(file.endswith(WEIGHTS) for file in files):
            yield Path(place)
