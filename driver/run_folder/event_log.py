"""What happened to a run, one JSON object a line in its folder: when, who, what (EventLog)."""

import getpass
import json
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from plumbob.cluster.run_status import MESSAGE_CHARS
from plumbob.core.disk_errors import naming_file
from plumbob.core.errors import RunStopped, UserError, first_line
from plumbob.core.stamped_lines import utc_now
from plumbob.driver.run_folder.folder import EVENTS_FILE

STEP = "step"
"""What a step is called among the events. Of a long run nearly all are."""

TAIL_BYTES = 2**16
"""Read at once from a record's end."""

MOST_BEFORE_EVENT = 80
"""Bytes of a line in which its `time` and `event` stand, which are its first."""

_STEP_LINE = json.dumps({"event": STEP})[1:-1].encode()


class DoneStep(NamedTuple):
    """A step of a stage that has ended; `time`: when, in UTC."""

    stage: str
    step: int
    time: str


class StepsToKeep:
    """The steps that have ended and that no checkpoint has yet, so that a resumed run would make them again."""

    def __init__(self) -> None:
        self._steps: list[DoneStep] = []

    def stepped(self, stage: str, step: int) -> None:
        """One has just ended; those from this one on that ended before have been lost, with the learners."""
        self._steps = self._steps if self._is_next(stage, step) else self._before(stage, step)
        self._steps.append(DoneStep(stage, step, utc_now()))

    def kept(self, stage: str, step: int) -> list[DoneStep]:
        """Those that the checkpoint of a step has, which are given once."""
        found, self._steps = self._before(stage, step + 1), []
        return found

    def _is_next(self, stage: str, step: int) -> bool:
        return not self._steps or (self._steps[-1].stage == stage and self._steps[-1].step < step)

    def _before(self, stage: str, step: int) -> list[DoneStep]:
        return [one for one in self._steps if one.stage == stage and one.step < step]


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


def is_step(line: bytes) -> bool:
    """Whether a line of the record is a step, by its beginning: JSON is read of the others alone."""
    return _STEP_LINE in line[:MOST_BEFORE_EVENT]


def read_events(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a record that are no steps; none where there is no file. ValueError where one is no JSON."""
    content = path.read_bytes() if path.exists() else b""
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    return [json.loads(line) for line in lines if not is_step(line)]


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
