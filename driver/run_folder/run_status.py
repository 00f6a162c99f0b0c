"""What a run is known by while it goes on: its stage, its last step, its workers; and what is wanted of it."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from plumbob.core.disk_errors import replace_text
from plumbob.trainers.metrics.metrics_log import Listener, StepRecord

STATUS_FILE = "status.json"


class StatusListener:
    """A listener that passes on what it hears, and keeps the status of the run.

    Args:
        path: where the status is written at every step, for those who ask when the run is over.
        details: what the session adds: workers, restarts, the ledger.
        stepped: called at every step.
    """

    def __init__(
        self,
        listener: Listener,
        path: Path,
        details: Callable[[], Mapping[str, Any]],
        stepped: Callable[[StepRecord], None],
    ) -> None:
        self._listener, self._path, self._details, self._stepped = listener, path, details, stepped
        self._stage: dict[str, Any] = {}
        self._last_words = ""

    def status(self) -> dict[str, Any]:
        """What JSON can carry; `time` in seconds since 1970."""
        return {"time": time.time(), **self._stage, "last_message": self._last_words, **self._details()}

    def stage_began(self, stage: str) -> None:
        self._stage = {"stage": stage}
        self._listener.stage_began(stage)

    def stepped(self, record: StepRecord) -> None:
        self._stage = {
            "stage": record.stage,
            "step": record.step,
            "num_steps": record.num_steps,
            "metrics": dict(record.metrics),
            "seconds": dict(record.seconds),
        }
        self._stepped(record)
        self.write()
        self._listener.stepped(record)

    def said(self, stage: str, message: str) -> None:
        self._last_words = message
        self._listener.said(stage, message)

    def stage_ended(self, stage: str, summary: Mapping[str, object]) -> None:
        self.write()
        self._listener.stage_ended(stage, summary)

    def write(self) -> None:
        """Keep the status for those who ask when the run is over."""
        replace_text(self._path, json.dumps(self.status(), default=str) + "\n")
