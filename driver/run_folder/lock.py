"""The lock of a run's folder (`flock`): at most one driver works there, and the lock of a dead one is free."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from plumbob.core.errors import UserError

LOCK_FILE = "driver.lock"
"""Whoever has it locked is the run's driver; it says who that is."""

LOCKLESS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
"""What a file system answers that keeps no locks."""


@contextmanager
def locked_folder(folder: Path, notify: Callable[[str], None]) -> Iterator[bool]:
    """The folder is this driver's alone until it leaves it or dies.

    Gives whether it is. Where the file system keeps no locks that cannot be known, of which the user is notified.

    Raises:
        UserError: another driver has it, or it may not be written.
    """
    made = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    if _has_something(folder.absolute().parent):  # Which may be a run that made it, and leaves before we do.
        made.append(folder.absolute().parent)
    lock = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise UserError(
                f"{folder}: this folder may not be written: resume its run as the user who began it, or resume a "
                f"copy of it that you may write"
            )
        lock = _lock(folder / LOCK_FILE)
        if lock is None:
            notify(f"{folder}: this file system keeps no locks, so that a second driver of the run is not noticed")
        yield lock is not None
    finally:
        if lock is not None:
            (folder / LOCK_FILE).unlink(missing_ok=True)
            os.close(lock)
        for path in made:
            with suppress(OSError):  # Something stands in it.
                path.rmdir()


def _has_something(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return False


def _lock(path: Path) -> int | None:
    """The file, open and locked, with our name in it; None where there are no locks."""
    while True:
        lock = _open(path)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_same_file(path, lock):
                os.ftruncate(lock, 0)
                since = time.strftime("%Y-%m-%d %H:%M:%S")
                os.write(lock, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode())
                return lock
        except OSError as error:
            owner = os.pread(lock, 1000, 0).decode().strip()  # The owner may have taken the path away by now.
            os.close(lock)
            if error.errno in LOCKLESS:
                path.unlink(missing_ok=True)
                return None
            if isinstance(error, BlockingIOError):
                raise UserError(
                    f"{path.parent}: a driver is at work on this run: {owner}; look at it with: "
                    f"plumbob status {path.parent}"
                ) from error
            raise
        os.close(lock)


def _open(path: Path) -> int:
    """The file, made if need be. Raises UserError where it is another user's, who alone may write it."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except PermissionError as error:
        raise UserError(
            f"{path}: {error.strerror}: it is another user's; where no driver of theirs is at work on the run any "
            f"more, on the host that it names, delete the file"
        ) from error


def _is_same_file(path: Path, lock: int) -> bool:
    """Whether the open file is the one of that path: the driver before may have taken away what we have locked."""
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False
