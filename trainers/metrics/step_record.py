"""What a stage reports while it runs: the record of a step, who hears of it, and what its phases took."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from plumbob.core.spans import spans
from plumbob.trainers.metrics.stage_result import StageSummary

SAMPLE_CHARS = 300
"""Of a prompt and of a response that are shown as a sample."""

WorkerCounts = Mapping[str, Mapping[str, int]]
"""Role -> what its workers are doing -> how many of them; "" stands for what a role does not say, as learners do."""


@dataclass(frozen=True)
class ResponseSample:
    """One response of a step, for people.

    Attributes:
        prompt: its end, at most SAMPLE_CHARS of it.
        response: its beginning, likewise.
        score: of the scorer, before shaping.
    """

    prompt: str
    response: str
    score: float

    @classmethod
    def cut(cls, prompt: str, response: str, score: float) -> "ResponseSample":
        """Of whole texts, of which what is left out is marked."""
        shown = prompt if len(prompt) <= SAMPLE_CHARS else f"\u2026{prompt[1 - SAMPLE_CHARS :]}"
        begun = response if len(response) <= SAMPLE_CHARS else f"{response[: SAMPLE_CHARS - 1]}\u2026"
        return cls(shown, begun, score)


@dataclass(frozen=True)
class StepRecord:
    """One step of one stage.

    Attributes:
        stage: "pretrain", "sft", "reward", "ppo", ...
        step: 1-based number of the step that has just ended.
        num_steps: how many there will be.
        metrics: name -> value, such as "loss", "reward", "kl", "tokens_per_s".
        seconds: phase -> seconds, such as "sample", "score", "learn", "publish".
        sample: one of its responses; None of a stage that samples none.
        num_samples: responses, records or pairs that it learnt from.
        joules: phase -> energy of the driver's host in it; empty where nobody counted.
    """

    stage: str
    step: int
    num_steps: int
    metrics: Mapping[str, float]
    seconds: Mapping[str, float]
    sample: ResponseSample | None = None
    num_samples: int = 0
    joules: Mapping[str, float] = field(default_factory=dict)


class Listener(Protocol):
    """What is notified of a run's progress. The console has a live one and a plain one."""

    def stage_began(self, stage: str) -> None: ...

    def stepped(self, record: StepRecord) -> None: ...

    def notify(self, stage: str, message: str) -> None:
        """A sentence for the user: rows skipped, a bound passed, what is being waited for."""

    def workers_changed(self, workers: WorkerCounts) -> None:
        """What the workers are doing now; called from any thread, as often as that changes."""

    def stage_ended(self, stage: str, summary: StageSummary) -> None: ...


class Phases:
    """Seconds per phase of one step: `with phases.phase("sample"): ...`, then `take()` at the step's end.

    Args:
        joules: reads a counter of energy, which is taken by phase too; None where nobody counts.
    """

    def __init__(self, joules: Callable[[], float] | None = None) -> None:
        self._seconds: dict[str, float] = {}
        self._read_joules, self._joules = joules, dict[str, float]()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's wall-clock seconds, and its energy, to `name`, also when the block raises."""
        began, joules = time.monotonic(), self._counted()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - began
            if self._read_joules is not None:
                self._joules[name] = self._joules.get(name, 0.0) + self._counted() - joules
            spans.record_here(name, began)

    def total(self) -> float:
        """All seconds counted since the last `take`."""
        return sum(self._seconds.values())

    def take(self) -> dict[str, float]:
        """The seconds since the last `take`, and start anew."""
        seconds, self._seconds = self._seconds, {}
        return seconds

    def take_joules(self) -> dict[str, float]:
        """The energy since the last `take_joules`, and start anew."""
        joules, self._joules = self._joules, {}
        return joules

    def _counted(self) -> float:
        return 0.0 if self._read_joules is None else self._read_joules()
