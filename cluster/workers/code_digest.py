"""Plumbob's own source: the files that it is made of, and by what two hosts tell that theirs are the same."""

import hashlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import NamedTuple

import plumbob

SOURCE_SUFFIXES = (".py", ".yaml", ".typed")

NO_SOURCE = frozenset({"plumbob", "tests", "benchmarks", "examples"})
"""Packages beside those of Plumbob in a checkout: the one that gathers them, and what is never installed."""

NOT_OF_WORKERS = "console/"
"""What a person touches: no worker runs it."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SourceFile(NamedTuple):
    """A file of Plumbob.

    Attributes:
        path: where it is on this host.
        name: below the package `plumbob`, wherever that is: `models/loading.py`.
    """

    path: Path
    name: str


def package_folder() -> Path:
    """The folder of the package that this process runs: `plumbob/` in a checkout or among installed packages."""
    return Path(plumbob.__path__[0])


def source_files() -> list[SourceFile]:
    """Code and presets of the package that this process runs, and nothing else: no runs, data, tests or environments.

    In a checkout its parts are the folders beside `plumbob/`, once installed those in it: the names are the same.
    """
    folders = {
        part.name: Path(path) / part.name
        for path in plumbob.__path__
        for part in pkgutil.iter_modules([path])
        if part.ispkg and part.name not in NO_SOURCE
    }
    found = [SourceFile(path, path.name) for path in package_folder().iterdir()]
    for part, folder in folders.items():
        found += [SourceFile(path, f"{part}/{path.relative_to(folder).as_posix()}") for path in folder.rglob("*")]
    source = [(path, name) for path, name in found if path.suffix in SOURCE_SUFFIXES and path.is_file()]
    return sorted((SourceFile(path, name) for path, name in source), key=lambda file: file.name)


@cache
def source_digest() -> str:
    """Of the code that workers run, as it stood when this process first asked: 12 hex digits."""
    digest = hashlib.blake2b(digest_size=6)
    for path, name in source_files():
        if path.suffix == ".py" and not name.startswith(NOT_OF_WORKERS):
            content = path.read_bytes()
            digest.update(f"{name} {len(content)} ".encode())
            digest.update(content)
    return digest.hexdigest()


def source_location() -> str:
    """The same for two processes of one machine that read the same files, and for no others."""
    found = package_folder().stat()
    return f"{BOOT_ID.read_text().strip() if BOOT_ID.exists() else ''} {found.st_dev} {found.st_ino}"
