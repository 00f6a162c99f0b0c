"""The steps in the record of a run's events: which are to be written, and how readers pass over their lines."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from plumbob.core.stamped_lines import utc_now

STEP = "step"
"""What a step is called among the events. Of a long run nearly all are."""

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


def is_step(line: bytes) -> bool:
    """Whether a line of the record is a step, by its beginning: JSON is read of the others alone."""
    return _STEP_LINE in line[:MOST_BEFORE_EVENT]


def read_events(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a record that are no steps; none where there is no file. ValueError where one is no JSON."""
    content = path.read_bytes() if path.exists() else b""
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    return [json.loads(line) for line in lines if not is_step(line)]
