"""Each step of a stage to every sink, then to the listener."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from plumbob.trainers.learner.checkpoint import Checkpoint
from plumbob.trainers.metrics.sinks.jsonl import JsonlSink
from plumbob.trainers.metrics.sinks.metric_sink import MetricSink
from plumbob.trainers.metrics.sinks.tensorboard import TensorBoardSink
from plumbob.trainers.metrics.step_record import Listener, Phases, StepRecord


def open_sinks(folder: Path) -> tuple[MetricSink, ...]:
    """Those of a stage whose results are in `folder`. The first is the record that a run is resumed by."""
    return (JsonlSink(folder), TensorBoardSink(folder))


class MetricsLog:
    """Appends each step to all sinks, then tells the listener.

    A step is on the disk before `append` returns: a checkpoint that is made after it has its line, whatever happens.

    Args:
        trackers: sinks of the whole run, which stay open.
        joules: reads a counter of energy; None where nobody counts.

    Attributes:
        saved: told of each checkpoint that the stage has made.
        is_save_requested: whether a person wants one at the end of the step.
    """

    def __init__(
        self,
        folder: Path,
        listener: Listener,
        saved: Callable[[Checkpoint], None] = lambda checkpoint: None,
        is_save_requested: Callable[[], bool] = lambda: False,
        trackers: Sequence[MetricSink] = (),
        joules: Callable[[], float] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._listener, self.saved, self.is_save_requested = listener, saved, is_save_requested
        self._own, self._trackers, self._joules = open_sinks(folder), tuple(trackers), joules

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        with ExitStack() as stack:  # All of them, whatever the first raises.
            for sink in reversed(self._own):
                stack.callback(sink.close, error is not None)

    def phases(self) -> Phases:
        """What counts the phases of the stage's steps."""
        return Phases(self._joules)

    def append(self, record: StepRecord) -> None:
        now = time.time()
        for sink in (*self._own, *self._trackers):
            sink.append(record, now)
        self._listener.stepped(record)

    def notify(self, stage: str, message: str) -> None:
        """Tell the listener a sentence."""
        self._listener.notify(stage, message)

    def truncate_after(self, step: int) -> None:
        """Drop the steps past `step`, as resuming from its checkpoint does; they are about to be made again."""
        for sink in (*self._own, *self._trackers):
            sink.truncate_after(step)
