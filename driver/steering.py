"""The Python API of a run that is running: look at it, and change it, from any process that reaches its cluster.

`run` is its folder, or its name below `runs/`; with `address`, as of `plumbob status`, its name on that Ray cluster.
All raise NotRunningError where no such run is running, and UserError where it cannot be reached or refuses.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbob.cluster.connection import joined_briefly
from plumbob.cluster.control_actor import answer, find
from plumbob.cluster.run_status import RunStatus
from plumbob.core.errors import NotRunningError, UserError
from plumbob.core.outside import from_outside, read_json_object
from plumbob.driver.run_folder.connection_file import read_connection_file
from plumbob.driver.run_folder.event_log import this_process
from plumbob.driver.run_folder.folder import STATUS_FILE, SUMMARY_FILE, find_run


@dataclass(frozen=True)
class RunState:
    """Whether a run is running, and where it stands.

    Attributes:
        why_not: why it counts as not running; None where it is.
        status: what it reported or, of one that is not running, wrote last; None before its first report.
        is_finished: whether it has ended well and left its summary; one that is neither running nor finished can be
            resumed.
    """

    why_not: str | None
    status: RunStatus | None
    is_finished: bool = False

    @property
    def is_running(self) -> bool:
        return self.why_not is None

    def as_dict(self) -> dict[str, Any]:
        """What `plumbob status --json` prints: `running`, `finished`, of one that is not running `why`, the status."""
        why = {} if self.why_not is None else {"why": self.why_not}
        status = {} if self.status is None else self.status.as_dict()
        return {"running": self.is_running, "finished": self.is_finished, **why, **status}


def status(run: str | Path, address: str | None = None) -> RunState:
    """Where the run stands; of one that is not running, where it last stood."""
    try:
        with _control_of_run(run, address) as control:
            content = answer(control.status.remote())
            return RunState(None, RunStatus.from_dict(content) if content else None)
    except NotRunningError as error:
        last = _status_on_disk(run)
        if last is None:
            raise
        return RunState(str(error), last, (find_run(run) / SUMMARY_FILE).exists())


@contextmanager
def asking_for_status(run: str | Path, address: str | None = None) -> Iterator[Callable[[], RunStatus | None]]:
    """The status again and again, over one connection: what is given answers with it, with None before the first.

    It raises NotRunningError when the run is running no more.
    """
    where, name = _from_folder(run) if address is None else (address, str(run))

    def ask() -> RunStatus | None:
        content = answer(find(name).status.remote())
        return RunStatus.from_dict(content) if content else None

    with joined_briefly(where):
        yield ask


def scale(run: str | Path, num_rollout_workers: int, address: str | None = None) -> int:
    """Change the number of rollout workers; returns how many there were. Who leaves finishes its responses first."""
    with _control_of_run(run, address) as control:
        before: int = answer(control.scale.remote(num_rollout_workers, this_process()))
    return before


def leave(run: str | Path, host: str, address: str | None = None) -> None:
    """Drain a host that will be taken away, by its address or name: its rollout workers and scorers end their work."""
    with _control_of_run(run, address) as control:
        answer(control.drain_host.remote(host, this_process()))


def save(run: str | Path, address: str | None = None) -> None:
    """Ask the run for a checkpoint at the end of the step that it is at. Online stages make one at each."""
    with _control_of_run(run, address) as control:
        answer(control.save.remote(this_process()))


def stop(run: str | Path, address: str | None = None) -> None:
    """Ask the run to stop where little is lost; `driver.api.resume` resumes it."""
    with _control_of_run(run, address) as control:
        answer(control.stop.remote(this_process()))


@contextmanager
def _control_of_run(run: str | Path, address: str | None) -> Iterator[Any]:
    """The run's control actor."""
    where, name = _from_folder(run) if address is None else (address, str(run))
    with joined_briefly(where):
        yield find(name)


def _from_folder(run: str | Path) -> tuple[str, str]:
    """Address and name of the run that is running in a folder; a private Ray cluster's token is made ours."""
    folder = find_run(run)
    connection = read_connection_file(folder)
    if connection is None and (folder / SUMMARY_FILE).exists():
        raise NotRunningError(f"{folder}: this run is finished; its result is there, and `plumbob report` shows it")
    if connection is None:
        raise NotRunningError(
            f"{folder}: this run is not running; `plumbob resume {folder}` resumes it. A run on a cluster is reached "
            f"by its name and --address HOST:PORT"
        )
    if connection.token is not None:
        os.environ["RAY_AUTH_TOKEN"] = connection.token
    return connection.address, connection.name


def _status_on_disk(run: str | Path) -> RunStatus | None:
    """The status that the run wrote last, where its folder can be read. Raises UserError where that is no status."""
    try:
        path = find_run(run) / STATUS_FILE
        if not path.exists():
            return None
    except UserError:
        return None
    what, fix = f"{path}: expected the status of a run as JSON", "delete it; the run writes it anew when it resumes"
    content = read_json_object(path, what, fix)
    with from_outside(what, fix):
        return RunStatus.from_dict(content)
