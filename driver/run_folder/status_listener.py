"""A listener that keeps how far a run has come, and writes its status into its folder at every step and in between."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

from plumbob.cluster.run_status import RunStatus
from plumbob.core.disk_errors import replace_text
from plumbob.driver.run_folder.event_log import EventLog
from plumbob.trainers.metrics.json_lines import strict
from plumbob.trainers.metrics.stage_result import StageSummary
from plumbob.trainers.metrics.step_record import Listener, StepRecord, WorkerCounts

BETWEEN_STEPS_S = 2.0
"""How often the status is written at most while no step ends: for a display elsewhere that reads the folder."""


class StatusListener:
    """Passes on what it hears.

    Args:
        path: where the status is written, for those who ask when the run is over.
        status: of the run, as it is now.
        after_step: called at every step, before the status is written.
        events: where beginnings and ends of stages are recorded.

    Attributes:
        stage, step: the newest; None before the first.
        last_message: the newest; empty before the first.
    """

    def __init__(
        self,
        listener: Listener,
        path: Path,
        status: Callable[[], RunStatus],
        after_step: Callable[[StepRecord], None],
        events: EventLog,
    ) -> None:
        self._listener, self._path, self._status, self._after_step = listener, path, status, after_step
        self._events = events
        self._writing = threading.Lock()
        self._written_at = -BETWEEN_STEPS_S
        self.stage: str | None = None
        self.step: StepRecord | None = None
        self.last_message = ""

    def stage_began(self, stage: str) -> None:
        self.stage, self.step = stage, None
        self._events.record("stage_began", stage=stage)
        self._listener.stage_began(stage)

    def stepped(self, record: StepRecord) -> None:
        self.stage, self.step = record.stage, record
        self._after_step(record)
        self._write()
        self._listener.stepped(record)

    def notify(self, stage: str, message: str) -> None:
        self.last_message = message
        self._listener.notify(stage, message)

    def workers_changed(self, workers: WorkerCounts) -> None:
        if time.monotonic() - self._written_at >= BETWEEN_STEPS_S:
            self._write()
        self._listener.workers_changed(workers)

    def stage_ended(self, stage: str, summary: StageSummary) -> None:
        self._write()
        self._events.record("stage_ended", stage=stage, summary=strict(summary.as_dict()))
        self._listener.stage_ended(stage, summary)

    def _write(self) -> None:
        with self._writing:
            self._written_at = time.monotonic()
            replace_text(self._path, json.dumps(self._status().as_dict(), default=str) + "\n")
