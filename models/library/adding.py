"""Adapters come into a library: copied from a PEFT folder, or written as they were made, with what is known of them."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from plumbob.configs.paths import absolute
from plumbob.configs.settings.models import ModelRef
from plumbob.core.atomic_files import write_atomically
from plumbob.core.errors import UserError
from plumbob.models.adapter import CONFIG_FILE, WEIGHTS_FILE, Adapter, save_adapter
from plumbob.models.files.weight_files import num_stored
from plumbob.models.fingerprint import digests_of_model
from plumbob.models.library.adapter_library import AdapterLibrary
from plumbob.models.library.base_digest import base_digest, resolve_checked
from plumbob.models.library.library_entry import ENTRY_FILE, LibraryEntry, TrainingFacts
from plumbob.models.resolution import BASE_KEY, read_adapter_config, resolve_model, served_rank

COPIED = frozenset({".json", ".safetensors", ".jinja", ".txt", ".model", ".md"})
"""Suffixes of what belongs to a PEFT folder: its config and weights, a tokenizer, a page about it. No pickles."""

FOLDER = "FOLDER"
"""What an error calls the folder that was given."""


@dataclass(frozen=True)
class AddedAdapter:
    """What came into a library.

    Attributes:
        left_out: names in the folder that were not copied.
    """

    entry: LibraryEntry
    left_out: tuple[str, ...]


def add_adapter(
    library: AdapterLibrary, folder: Path, name: str, task: str | None, facts: TrainingFacts
) -> AddedAdapter:
    """Copy an adapter's folder, whoever wrote it; that stays as it is.

    Of one that comes from another library what that knew is kept, as far as nothing else is known.

    Args:
        facts: of its training, as far as its run knows them.

    Raises:
        UserError: it is no adapter that can be loaded, its base is not there or not the one that it was trained on, or
            the library cannot take it.
    """
    library.check_new(name)
    source = resolve_checked(ModelRef(str(folder), FOLDER))
    if source.adapter is None:
        raise UserError(f"{FOLDER}={folder}: is a full model, and a library holds adapters ({CONFIG_FILE})")
    known = LibraryEntry.read_beside(folder)
    if known is not None and facts == TrainingFacts():
        facts = known.facts
    _check_base_of_run(source.base, facts)
    with library.new(name) as place:
        left_out = copy_tokenizer(folder, place)
        shutil.copyfile(folder / WEIGHTS_FILE, place / WEIGHTS_FILE)
        config = read_adapter_config(folder) | {BASE_KEY: absolute(source.base)}
        write_config(place, config)
        entry = new_entry(place, name, task or (None if known is None else known.task), facts, str(folder.resolve()))
        entry.write(place)
    return AddedAdapter(entry, left_out)


def add_sum(
    library: AdapterLibrary, name: str, task: str | None, adapter: Adapter, how: str, parts: Mapping[str, float]
) -> LibraryEntry:
    """A weighted sum of adapters of the library, with the tokenizer of the first.

    What the parts were trained on is kept under their names; what the sum scores nobody knows yet.

    Args:
        parts: name of an adapter of the library -> its weight.

    Raises:
        UserError: the library cannot take it.
    """
    entries = [library.entry(part) for part in parts]
    first = entries[0]
    data = {f"{each.name}: {key}": one for each in entries for key, one in (each.data or {}).items()}
    is_alike = all(each.quantization == first.quantization for each in entries)
    facts = TrainingFacts(
        base_digest=first.base_digest, quantization=first.quantization if is_alike else None, data=data or None
    )
    source = f"{how} of {', '.join(f'{weight:g} x {part}' for part, weight in parts.items())}"
    with library.new(name) as place:
        copy_tokenizer(library.folder_of(first.name), place)
        save_adapter(adapter, place)
        entry = new_entry(place, name, task, facts, source, parts)
        entry.write(place)
    return entry


def copy_tokenizer(folder: Path, place: Path) -> tuple[str, ...]:
    """What an adapter's folder has beside the adapter itself; gives the names of what is no part of a PEFT folder."""
    own = {ENTRY_FILE, CONFIG_FILE, WEIGHTS_FILE}
    others = [path for path in sorted(folder.iterdir()) if path.name not in own]
    left_out = [path.name for path in others if path.suffix not in COPIED or not path.is_file()]
    for path in others:
        if path.name not in left_out:
            shutil.copyfile(path, place / path.name)
    return tuple(left_out)


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    write_atomically(folder / CONFIG_FILE, json.dumps(dict(config), indent=2, sort_keys=True) + "\n")


def new_entry(
    folder: Path,
    name: str,
    task: str | None,
    facts: TrainingFacts,
    source: str,
    parts: Mapping[str, float] | None = None,
) -> LibraryEntry:
    """What is known of the adapter in a folder, whose config and weights are there.

    Args:
        source: where it comes from, in words or as a folder.
        parts: what it is a weighted sum of.
    """
    found = resolve_model(ModelRef(str(folder), FOLDER))
    config, weights = read_adapter_config(folder), folder / WEIGHTS_FILE
    return LibraryEntry(
        name=name,
        task=task,
        method="dora" if config.get("use_dora") else str(config["peft_type"]).lower(),
        rank=served_rank(found, new_rank=0),
        num_parameters=num_stored(weights),
        num_bytes=weights.stat().st_size,
        digest=digests_of_model(str(folder), FOLDER)[WEIGHTS_FILE],
        base=absolute(found.base),
        base_digest=base_digest(found.base) or facts.base_digest,
        quantization=None if facts.quantization is None else dict(facts.quantization),
        data=None if facts.data is None else dict(facts.data),
        scores=None if facts.scores is None else dict(facts.scores),
        run=facts.run,
        stage=facts.stage,
        trained=facts.trained,
        source=source,
        parts=dict(parts or {}),
        added=datetime.now().astimezone().isoformat(timespec="seconds"),
    )


def move_base(library: AdapterLibrary, name: str, base: Path) -> LibraryEntry:
    """Say in an adapter's config and in its entry that its base is in another folder now. UserError as `entry`."""
    folder, entry = library.folder_of(name), library.entry(name)
    write_config(folder, read_adapter_config(folder) | {BASE_KEY: str(base)})
    moved = entry.model_copy(update={"base": str(base)})
    moved.write(folder)
    return moved


def _check_base_of_run(base: str, facts: TrainingFacts) -> None:
    found = base_digest(base)
    if found is not None and facts.base_digest is not None and found != facts.base_digest:
        raise UserError(
            f"{base}: is not the model that the run {facts.run} began with (digest {facts.base_digest}, now {found}): "
            f"the adapter does not fit it; put that model back, or write its folder into {BASE_KEY} of {CONFIG_FILE}"
        )
