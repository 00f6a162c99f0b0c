"""The Python API of a run that is going on: look at it, and change it, from any process that reaches its cluster.

`run` is its folder, or its name below `runs/`; with `address`, as of `plumbob status`, its name on the Ray there. All
raise NotRunningError where no such run goes on, and UserError where it cannot be reached or refuses.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plumbob.cluster.connection import joined
from plumbob.cluster.control_actor import answer, find
from plumbob.core.errors import NotRunningError, UserError
from plumbob.driver.run_folder.connection_file import read_connection_file
from plumbob.driver.run_folder.folder import find_run
from plumbob.driver.run_folder.run_status import STATUS_FILE


def status(run: str | Path, address: str | None = None) -> dict[str, Any]:
    """Where the run stands; of one that does not go on, what it wrote down last, and `why` that is all.

    Returns `running`, and what `driver.run_folder.run_status.Watched.status` gives.
    """
    try:
        with _reached(run, address) as control:
            return {"running": True, **answer(control.status.remote())}
    except NotRunningError as error:
        written = _last_written(run)
        if written is None:
            raise
        return {"running": False, "why": str(error), **written}


def scale(run: str | Path, num_rollout_workers: int, address: str | None = None) -> int:
    """Change the number of rollout workers; returns how many there were. Who leaves finishes its answers first."""
    with _reached(run, address) as control:
        before: int = answer(control.scale.remote(num_rollout_workers))
    return before


def leave(run: str | Path, host: str, address: str | None = None) -> None:
    """Let rollout workers and scorers go from a host that will be taken away, by its address or name."""
    with _reached(run, address) as control:
        answer(control.leave.remote(host))


def stop(run: str | Path, address: str | None = None) -> None:
    """Ask the run to stop where little is lost; `driver.api.resume` goes on with it."""
    with _reached(run, address) as control:
        answer(control.stop.remote())


@contextmanager
def _reached(run: str | Path, address: str | None) -> Iterator[Any]:
    """The run's control actor."""
    where, name = _from_folder(run) if address is None else (address, str(run))
    with joined(where):
        yield find(name)


def _from_folder(run: str | Path) -> tuple[str, str]:
    """Address and name of the run that goes on in a folder; a private Ray's token is made ours."""
    folder = find_run(run)
    reach = read_connection_file(folder)
    if reach is None:
        raise NotRunningError(
            f"{folder}: this run is not going on; `plumbob resume {folder}` goes on with it. A run that goes on on a "
            f"cluster is reached by its name and --address HOST:PORT"
        )
    if reach.token is not None:
        os.environ["RAY_AUTH_TOKEN"] = reach.token
    return reach.address, reach.name


def _last_written(run: str | Path) -> dict[str, Any] | None:
    """The status that the run wrote down last, where its folder can be read."""
    try:
        found: dict[str, Any] = json.loads((find_run(run) / STATUS_FILE).read_text())
    except (UserError, FileNotFoundError):
        return None
    return found
