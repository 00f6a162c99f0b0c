"""The check that all hosts of a run share its storage: the driver leaves a probe there, every worker looks for it."""

import json
import secrets
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from plumbob.configs.paths import folders_of_base
from plumbob.core.disk_errors import storage_reason
from plumbob.core.errors import UserError, first_line
from plumbob.core.programs.function_source import digest_of_source
from plumbob.models.adapter import CONFIG_FILE


class StorageProbe:
    """A file that only this driver can have made: its name is random, so that no host knows it from before."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f".driver-{secrets.token_hex(16)}"
        self._lock = threading.Lock()
        self._is_written = False

    def write(self) -> Path:
        """Where it is, from the first call on; the folder is made if need be."""
        with self._lock:
            if not self._is_written:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._path.touch()
                self._is_written = True
        return self._path

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def check_shared(worker: str, host: str, error: OSError | None) -> None:
    """Refuse a host that does not see the run's folder as the driver does.

    Args:
        error: the result of looking for the driver's probe and of beginning a log beside it.

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
    """Models by absolute path, and what adapters are on, can be read as on the driver's host; hub names are not tried.

    Raises:
        UserError: one cannot.
        OSError: the disk is broken.
    """
    for model in models:
        if model is None or not Path(model).is_absolute():
            continue
        try:
            base = _base_of(Path(model))
        except (OSError, ValueError) as error:
            if storage_reason(error):
                raise
            raise UserError(
                f"worker {worker} on {host} cannot read the model {model}, which the driver's host has: "
                f"{first_line(error)}; put it where every host can read it"
            ) from error
        check_folders(worker, host, (base,))


def check_sources(worker: str, host: str, sources: Mapping[str, str]) -> None:
    """The user's functions stand in the same files as on the driver's host.

    Args:
        sources: function -> digest of its source there.

    Raises:
        UserError: one is not there, or is another.
    """
    for function, digest in sources.items():
        try:
            found = digest_of_source(function)
        except UserError as error:
            raise UserError(f"worker {worker} on {host} has not what the driver's host has: {error}") from error
        if found != digest:
            raise UserError(
                f"worker {worker} on {host}: function={function} has another source than on the driver's host; put the "
                f"same on every host, or the file on storage that all of them read"
            )


def _base_of(folder: Path) -> str | None:
    """What the adapter in a folder is on, None for a model. Lists the folder and reads the file that says which."""
    is_adapter = CONFIG_FILE in {path.name for path in folder.iterdir()}
    text = (folder / (CONFIG_FILE if is_adapter else "config.json")).read_text()
    if not is_adapter:
        return None
    base = json.loads(text).get("base_model_name_or_path") or ""
    return next((str(each) for each in folders_of_base(folder, base) if each.is_dir()), base)
