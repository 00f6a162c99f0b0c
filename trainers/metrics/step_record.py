"""What a stage reports while it runs: the record of a step, who hears of it, and the seconds of its phases."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from plumbob.core.spans import spans
from plumbob.trainers.metrics.stage_result import StageSummary


@dataclass(frozen=True)
class StepRecord:
    """One step of one stage.

    Attributes:
        stage: "pretrain", "sft", "reward", "ppo", ...
        step: 1-based number of the step that has just ended.
        num_steps: how many there will be.
        metrics: name -> value, such as "loss", "reward", "kl", "tokens_per_s".
        seconds: phase -> seconds, such as "sample", "score", "learn", "publish".
    """

    stage: str
    step: int
    num_steps: int
    metrics: Mapping[str, float]
    seconds: Mapping[str, float]


class Listener(Protocol):
    """What is notified of a run's progress. The console has a live one and a plain one."""

    def stage_began(self, stage: str) -> None: ...

    def stepped(self, record: StepRecord) -> None: ...

    def notify(self, stage: str, message: str) -> None:
        """A sentence for the user: rows skipped, a bound passed, what is being waited for."""

    def stage_ended(self, stage: str, summary: StageSummary) -> None: ...


class Phases:
    """Seconds per phase of one step: `with phases.phase("sample"): ...`, then `take()` at the step's end."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's wall-clock seconds to `name`, also when the block raises."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - began
            spans.record_here(name, began)

    def total(self) -> float:
        """All seconds counted since the last `take`."""
        return sum(self._seconds.values())

    def take(self) -> dict[str, float]:
        """The seconds since the last `take`, and start anew."""
        seconds, self._seconds = self._seconds, {}
        return seconds
