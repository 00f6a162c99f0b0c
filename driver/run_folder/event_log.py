"""What happened to a run, one JSON object a line in its folder: when, who, what (EventLog)."""

import getpass
import json
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from plumbob.cluster.run_status import MESSAGE_CHARS
from plumbob.core.disk_errors import naming_file
from plumbob.core.errors import RunStopped, UserError, first_line
from plumbob.core.stamped_lines import utc_now
from plumbob.driver.run_folder.folder import EVENTS_FILE
from plumbob.driver.run_folder.step_events import STEP, DoneStep

TAIL_BYTES = 2**16
"""Read at once from a record's end."""


class EventLog:
    """Appends to the file of a run, which is made when something happens. Called from several threads.

    A line is on the disk when `record` returns, whole: of a driver that died in the middle of one it is taken off.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS_FILE
        self._by = this_process()
        self._lock = threading.Lock()
        self._is_whole = False

    def record(self, event: str, **details: Any) -> None:
        """Add a line: `time` (UTC), `event`, `by` (this process, unless the details name another) and the details.

        Raises:
            OSError: the disk is full or broken.
        """
        self._add([{"time": utc_now(), "event": event, "by": self._by, **details}])

    def record_steps(self, steps: Sequence[DoneStep], event: str, **details: Any) -> None:
        """Add a line for each step, at the time of its end, and then the event by which they are kept: all at once."""
        lines = [
            {"time": one.time, "event": STEP, "by": self._by, "stage": one.stage, "step": one.step} for one in steps
        ]
        self._add([*lines, {"time": utc_now(), "event": event, "by": self._by, **details}])

    def _add(self, contents: Sequence[dict[str, Any]]) -> None:
        with self._lock, naming_file(self._path):
            if not self._is_whole:
                _take_off_torn_line(self._path)
                self._is_whole = True
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(content) + "\n" for content in contents))
                file.flush()
                os.fsync(file.fileno())

    @contextmanager
    def of_end(self) -> Iterator[None]:
        """Record why the block is left by an error; where the disk is why, that may not be possible."""
        try:
            yield
        except BaseException as error:
            with suppress(OSError):
                self.record(_end_of(error), why=first_line(error)[:MESSAGE_CHARS] or type(error).__name__)
            raise


def _take_off_torn_line(path: Path) -> None:
    """Of a driver that died while it wrote, whatever else is in the file."""
    with suppress(FileNotFoundError), path.open("rb+") as file:
        start = end = file.seek(0, os.SEEK_END)
        while start:
            start = max(start - TAIL_BYTES, 0)
            file.seek(start)
            newline = file.read(min(TAIL_BYTES, end - start)).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
        file.truncate(0)


def _end_of(error: BaseException) -> str:
    match error:
        case RunStopped() | KeyboardInterrupt():
            return "stopped"
        case UserError():
            return "refused"
        case _:
            return "failed"


def this_process() -> dict[str, Any]:
    """Who this is: user, host and process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # In a container a user may have a number alone.
        user = str(os.getuid())
    return {"user": user, "host": socket.gethostname(), "pid": os.getpid()}
