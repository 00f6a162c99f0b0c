"""Plumbob's own source: the files that it is made of, and by what two hosts tell that theirs are the same."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import plumbob.configs

SOURCE = ("configs", "data", "models", "rollout", "reward", "trainers", "cluster", "console")
SOURCE_SUFFIXES = (".py", ".yaml")

NOT_OF_WORKERS = "console"
"""What a person touches: no worker runs it."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def root() -> Path:
    """The folder of the packages that this process runs."""
    return Path(plumbob.configs.__path__[0]).parent


def source_files(folder: Path) -> Sequence[Path]:
    """Code and presets below `folder`, and nothing else: no runs, data or environments."""
    return [
        path
        for package in SOURCE
        for path in sorted((folder / package).rglob("*"))
        if path.suffix in SOURCE_SUFFIXES and path.is_file()
    ]


def source_digest(folder: Path) -> str:
    """Of the code that workers run, as it stands there now: 12 hex digits."""
    digest = hashlib.blake2b(digest_size=6)
    for path in source_files(folder):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".py" and not name.startswith(f"{NOT_OF_WORKERS}/"):
            content = path.read_bytes()
            digest.update(f"{name} {len(content)} ".encode())
            digest.update(content)
    return digest.hexdigest()


def source_place(folder: Path) -> str:
    """The same for two processes of one machine that read the same folder, and for no others."""
    found = folder.stat()
    return f"{BOOT_ID.read_text().strip() if BOOT_ID.exists() else ''} {found.st_dev} {found.st_ino}"
