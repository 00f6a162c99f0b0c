"""The folder of a library (`AdapterLibrary`): which adapters are there, where a new one goes, how one is removed."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plumbob.configs.validation import nearest, shortened
from plumbob.core.atomic_files import flush_all, replaced
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside
from plumbob.models.library.library_entry import ENTRY_FILE, LibraryEntry

LIBRARY_FIX = "give a folder that may be read: --library FOLDER"

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


class AdapterLibrary:
    """Each sub-folder with an entry is an adapter; whatever else is there is left alone."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError where it is below the home of a user that there is not."""
        with from_outside(f"--library={folder}: cannot be looked at", LIBRARY_FIX):
            self.folder = folder.expanduser()

    def names(self) -> list[str]:
        """Raises UserError when the folder cannot be looked at; one that is not there holds none."""
        with from_outside(f"{self.folder}: cannot be looked at", LIBRARY_FIX):
            if not self.folder.exists():
                return []
            return sorted(
                path.name
                for path in self.folder.iterdir()
                if NAME.fullmatch(path.name) and (path / ENTRY_FILE).is_file()
            )

    def entries(self) -> list[LibraryEntry]:
        """By name. Raises UserError when one is damaged."""
        return [LibraryEntry.read(self.folder / name) for name in self.names()]

    def folder_of(self, name: str) -> Path:
        """An adapter's. Raises UserError when the library has none of that name."""
        names = self.names()
        if name not in names:
            close = nearest(name, names)
            hint = f"did you mean {close}?" if close else f"there are: {', '.join(names) or 'none'}"
            raise UserError(f"{shortened(name)}: no adapter in the library {self.folder} is called that; {hint}")
        return self.folder / name

    def entry(self, name: str) -> LibraryEntry:
        """Raises UserError as `folder_of`, and when it is damaged."""
        return LibraryEntry.read(self.folder_of(name))

    def remove(self, name: str) -> None:
        """Raises UserError as `folder_of`, and when it may not be removed."""
        folder = self.folder_of(name)
        with from_outside(f"{folder}: cannot be removed", "remove it by hand"):
            if folder.is_symlink():
                folder.unlink()
            else:
                shutil.rmtree(folder)

    def check_new(self, name: str) -> None:
        """Raises UserError when no adapter can be called that, or something is."""
        if not NAME.fullmatch(name):
            raise UserError(
                f"--name={shortened(name)}: expected letters, digits, '-', '_' and '.', and no more than 100, of which "
                f"the first is a letter or a digit"
            )
        if (self.folder / name).exists():
            raise UserError(
                f"--name={name}: {self.folder / name} is there already; give another name, or take that one out first: "
                f"plumbob adapters rm {name}"
            )

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """A folder to fill, which stands in the library whole when the block ends, or not at all.

        Raises:
            UserError: as `check_new`, or the library cannot be written.
        """
        self.check_new(name)
        fix = "give a library that may be written: --library FOLDER"
        with from_outside(f"{self.folder / name}: cannot be written", fix), replaced(self.folder / name) as partial:
            yield partial
            flush_all(partial)
