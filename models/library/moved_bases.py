"""Bases that were moved: found again by their digests, and written into their adapters' folders."""

from collections.abc import Sequence
from pathlib import Path

from plumbob.core.errors import UserError
from plumbob.models.library.adapter_library import AdapterLibrary
from plumbob.models.library.adding import move_base
from plumbob.models.library.base_digest import base_digest, find_base
from plumbob.models.library.library_entry import LibraryEntry


def locate_bases(library: AdapterLibrary, names: Sequence[str], folders: Sequence[Path]) -> dict[str, str | None]:
    """Name of an adapter -> where its base is now; None where that was not found.

    A base that is where the adapter says stays; of the others, what is found is written into the adapter's config.

    Raises:
        UserError: there is no such adapter or folder, or an adapter's base is known by nothing that could be found.
    """
    entries = [library.entry(name) for name in names]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--bases={folder}: is no folder")
    found: dict[str, str | None] = {}
    for entry in entries:
        if _is_there(entry):
            found[entry.name] = entry.base
        elif entry.base_digest is None:
            raise UserError(f"{entry.name}: no digest of its base {entry.base} is known, by which it could be found")
        else:
            base = find_base(entry.base_digest, folders)
            found[entry.name] = None if base is None else move_base(library, entry.name, base).base
    return found


def _is_there(entry: LibraryEntry) -> bool:
    """A base without a digest is a hub name, or a folder that nobody has looked at."""
    if Path(entry.base).is_dir():
        return entry.base_digest is None or base_digest(entry.base) == entry.base_digest
    return entry.base_digest is None and not Path(entry.base).is_absolute()
