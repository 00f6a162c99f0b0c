"""A disk that is full or broken: its errors told apart from others, and what could not be written named."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plumbob.core.atomic_files import write_atomically
from plumbob.core.errors import RunFailed

BROKEN = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
"""No space, over a quota, a device that fails, a file system that may only be read."""

_OS_ERROR = re.compile(r"\(os error (\d+)\)")


class StorageFailed(RunFailed):
    """The disk of a run is full or broken."""


def storage_reason(error: BaseException | None) -> str | None:
    """What is wrong with the disk, and with which file where that is known; None for an error of another kind.

    The libraries written in Rust (safetensors, tokenizers) have the number of the system's error in their text alone.
    """
    if isinstance(error, OSError):
        number, name = error.errno, error.filename
    else:
        found = _OS_ERROR.search(str(error))
        number, name = int(found[1]) if found else None, None
    if number not in BROKEN:
        return None
    return f"{name}: {os.strerror(number)}" if name else os.strerror(number)


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """An error of the disk from inside that names no file, as those of a write, names this one."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno not in BROKEN:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


@contextmanager
def naming_final(partial: Path, final: Path) -> Iterator[None]:
    """An error of the disk from inside names the path in `final` of what it names in `partial`, which becomes `final`.

    One that names nothing names `final`.
    """
    try:
        with naming_file(partial):
            yield
    except OSError as error:
        if error.errno not in BROKEN:
            raise
        named = Path(os.fsdecode(error.filename))
        path = final / named.relative_to(partial) if named.is_relative_to(partial) else named
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def replace_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all, on the disk; an error of the disk names it."""
    with naming_file(path):
        write_atomically(path, text)
