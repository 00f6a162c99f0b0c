"""The connection file in a run's folder: name, address and token by which a running run is reached (ConnectionFile)."""

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from plumbob.cluster.connection import own_address
from plumbob.configs.settings.workers import ClusterSettings
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside
from plumbob.driver.run_folder.folder import CLUSTER_FILE


@dataclass(frozen=True)
class Connection:
    """Of a run that is running.

    Attributes:
        address: of its Ray, `HOST:PORT`.
        name: what the run is called there.
        token: of a private Ray cluster, which nobody else knows; None where the user has the cluster's own.
    """

    address: str
    name: str
    token: str | None


class ConnectionFile:
    """The file, as a context. Only the user who runs may read it."""

    def __init__(self, folder: Path, name: str, cluster: ClusterSettings) -> None:
        token = os.environ.get("RAY_AUTH_TOKEN") if cluster.address == "local" else None
        self._path = folder / CLUSTER_FILE
        self._connection = Connection(own_address(), name, token)

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, beside = tempfile.mkstemp(dir=self._path.parent)  # Only its owner can read it.
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(self._connection), file)
        Path(beside).replace(self._path)
        return self

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)


def read_connection_file(folder: Path) -> Connection | None:
    """None when no run is running there, as far as the folder knows. Raises UserError where that cannot be read."""
    path = folder / CLUSTER_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror}; only who runs it may; on a cluster give its name and --address"
        ) from error
    with from_outside(
        f"{path}: expected how to reach a run, as JSON", "delete it where no driver is at work on the run"
    ):
        connection = Connection(**json.loads(content))
        if not all(isinstance(one, str) for one in (connection.address, connection.name, connection.token or "")):
            raise ValueError("address, name and token must be text")
        return connection
