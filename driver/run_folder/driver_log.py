"""What a run's driver tells its user, kept in the run's folder with time stamps (DriverLog)."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from plumbob.core.errors import RunFailed, UserError
from plumbob.core.spans import spans
from plumbob.core.stamped_lines import StampedLines
from plumbob.driver.run_folder.folder import DRIVER_LOG, TRACE_FILE
from plumbob.trainers.metrics.stage_result import StageSummary
from plumbob.trainers.metrics.step_record import Listener, StepRecord, WorkerCounts


class DriverLog:
    """A listener that passes on what it hears, and writes it down; while it is entered, also what Python prints.

    Messages, warnings of libraries and the error that ends the run are in it, and a line a step.
    """

    def __init__(self, folder: Path, listener: Listener) -> None:
        self._path, self._listener = folder / DRIVER_LOG, listener

    def __enter__(self) -> Self:
        self._log = StampedLines(self._path)
        self._streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = _Tee(sys.stdout, self._log), _Tee(sys.stderr, self._log)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        sys.stdout, sys.stderr = self._streams
        if isinstance(error, RunFailed | UserError | KeyboardInterrupt):
            self._log.write(f"{error or type(error).__name__}\n")
        elif error is not None:
            self._log.write("".join(traceback.format_exception(kind, error, at)))
        self._log.close()

    def stage_began(self, stage: str) -> None:
        self._log.write(f"{stage}: begins\n")
        self._listener.stage_began(stage)

    def stepped(self, record: StepRecord) -> None:
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in record.metrics.items())
        self._log.write(f"{record.stage}: step {record.step} of {record.num_steps}: {metrics}\n")
        self._listener.stepped(record)

    def notify(self, stage: str, message: str) -> None:
        self._log.write(f"{stage}: {message}\n")
        self._listener.notify(stage, message)

    def workers_changed(self, workers: WorkerCounts) -> None:
        self._listener.workers_changed(workers)

    def stage_ended(self, stage: str, summary: StageSummary) -> None:
        self._log.write(f"{stage}: ended\n")
        self._listener.stage_ended(stage, summary)


@contextmanager
def kept_in(folder: Path, listener: Listener) -> Iterator[DriverLog]:
    """What a driver tells, and also when it and its workers were at what, if that was requested (`core.spans`)."""
    with DriverLog(folder, listener) as kept, spans.written_if_requested(folder / TRACE_FILE):
        yield kept


class _Tee:
    """A stream as it is, of whose text a log has a copy."""

    def __init__(self, stream: TextIO, log: StampedLines) -> None:
        self._stream, self._log = stream, log

    def write(self, text: str) -> int:
        self._log.write(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
