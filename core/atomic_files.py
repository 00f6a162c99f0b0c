"""Files and folders that stand on the disk whole or not at all: written beside, flushed, then renamed."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write a small file so that a reader, after a power loss too, sees the old text or the new, never a part.

    Which of the two that is only a `flush` of its folder settles.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        flush(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A hidden folder to fill and flush, which takes the place of `folder` when the block ends.

    An error leaves `folder` as it was, a death at any point as it was, gone or replaced. Every writer has a folder of
    its own, and whoever begins takes those of earlier ones away: one on a host that was given up for dead may still be
    at it, and must not replace what was written after it.

    Raises:
        FileNotFoundError: another writer has begun since.
    """
    discard(folder.parent, folder.name)
    partial = _temporary_path(folder)
    make_folder(folder.parent)
    partial.mkdir()
    made = os.open(partial, os.O_RDONLY)  # While it is open no other folder is taken for it.
    try:
        yield partial
        if not os.path.samestat(os.fstat(made), partial.stat()):  # Taken away, then made again by a library.
            raise FileNotFoundError(errno.ENOENT, "another writer took it away", str(partial))
        _swap(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(made)
    flush(folder.parent)


def make_folder(folder: Path) -> None:
    """The folder, if it is not there, with those above it; their entries are on the disk when this returns."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in new:
        flush(path.parent)


def open_to_readers(path: Path) -> None:
    """Give a file the mode that new files have: a library may have made it for its owner alone."""
    mask = os.umask(0o077)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def discard(parent: Path, pattern: str) -> None:
    """Remove what deaths left of folders with such a name: each at once by a rename, so that no part gets in use."""
    for abandoned in sorted(parent.glob(f".{pattern}.*.partial")):
        with suppress(OSError):
            shutil.rmtree(abandoned.rename(_temporary_path(abandoned)), ignore_errors=True)


def flush(path: Path) -> None:
    """What was written to a file, or which files a folder has, is on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_all(folder: Path) -> None:
    """The folder with everything in it."""
    for path in (*folder.rglob("*"), folder):
        flush(path)


def _temporary_path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name.strip('.')}.{secrets.token_hex(4)}.partial")


def _swap(partial: Path, folder: Path) -> None:
    old = _temporary_path(folder)
    with suppress(FileNotFoundError):
        folder.rename(old)
    try:
        partial.rename(folder)
    except OSError:
        with suppress(OSError):
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
