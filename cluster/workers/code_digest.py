"""Plumbob's own source: the files that it is made of, and a digest by which two hosts tell that theirs are the same."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import plumbob

FOLDERS = (
    *("core", "configs", "data", "models", "rollout", "reward", "trainers", "cluster", "driver", "verify", "console"),
)
"""Below the package `plumbob`."""

NOT_OF_WORKERS = ("verify", "console")
"""What no worker runs, and so may differ."""

SUFFIXES = (".py", ".yaml", ".typed")

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SourceFile(NamedTuple):
    """A file, and its name below the package: `trainers/build.py`, whether it is installed or in a checkout."""

    path: Path
    name: str


def source_files() -> Sequence[SourceFile]:
    """Code and presets of the package that this process runs, and nothing else: no runs, data or environments."""
    return [SourceFile(path, name) for path, name in _files() if path.suffix in SUFFIXES and path.is_file()]


def _files() -> Iterator[tuple[Path, str]]:
    own, *_ = plumbob.__path__
    yield from ((path, path.name) for path in sorted(Path(own).iterdir()))
    for folder in FOLDERS:
        # In a checkout the package has two places: its own folder, and the one that the others stand in.
        root = next(Path(place) for place in plumbob.__path__ if (Path(place) / folder / "__init__.py").is_file())
        for path in sorted((root / folder).rglob("*")):
            yield path, path.relative_to(root).as_posix()


def source_digest(files: Sequence[SourceFile]) -> str:
    """Of the code that workers run, as it stands there now: 12 hex digits."""
    digest = hashlib.blake2b(digest_size=6)
    for path, name in files:
        if path.suffix == ".py" and name.partition("/")[0] not in NOT_OF_WORKERS:
            content = path.read_bytes()
            digest.update(f"{name} {len(content)} ".encode())
            digest.update(content)
    return digest.hexdigest()


def source_place() -> str:
    """The same for two processes of one machine that read the same folder, and for no others."""
    found = Path(plumbob.__path__[0]).stat()
    return f"{BOOT_ID.read_text().strip() if BOOT_ID.exists() else ''} {found.st_dev} {found.st_ino}"
