"""The storage that all hosts of a run share: the driver leaves a mark there, and every worker looks for it."""

import secrets
import threading
from collections.abc import Iterable
from pathlib import Path

from configs.errors import UserError
from trainers.storage import storage_reason


class Mark:
    """A file that only this driver can have made: its name is random, so that no host knows it from before."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f".driver-{secrets.token_hex(16)}"
        self._turn = threading.Lock()
        self._is_left = False

    def left(self) -> Path:
        """Where it is, from the first call on; the folder is made if need be."""
        with self._turn:
            if not self._is_left:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._path.touch()
                self._is_left = True
        return self._path

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def check_shared(worker: str, host: str, error: OSError | None) -> None:
    """Refuse a host that does not see the run's folder as the driver does.

    Args:
        error: what came of looking for the driver's mark and of beginning a log beside it.

    Raises:
        UserError: it is not there, or cannot be read or written.
        OSError: the disk is full or broken.
    """
    if error is None:
        return
    if storage_reason(error):
        raise error
    folder = Path(error.filename).parent
    raise UserError(
        f"worker {worker} on {host} cannot use {folder} as the driver does: {Path(error.filename).name}: "
        f"{error.strerror}; set storage.path to a folder on storage that every host can read and write"
    )


def check_folders(worker: str, host: str, models: Iterable[str | None]) -> None:
    """Models by absolute path were folders on the driver's host; a name of the hub is not looked up.

    Raises:
        UserError: one is not there.
    """
    for model in models:
        if model is not None and Path(model).is_absolute() and not Path(model).is_dir():
            raise UserError(
                f"worker {worker} on {host} finds no folder {model}, which the driver's host has: put it where every "
                f"host can read it"
            )
