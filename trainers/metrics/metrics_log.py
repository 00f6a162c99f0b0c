"""What a stage reports while it runs: one record a step, to a file, to TensorBoard and to whoever watches."""

import json
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, Self

from plumbob.core.atomic_files import flush
from plumbob.core.disk_errors import naming, replace_text

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
EVENTS_VERSION = "brain.Event:2"


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
    """Who watches a run. The console has a live one and a plain one."""

    def stage_began(self, stage: str) -> None: ...

    def stepped(self, record: StepRecord) -> None: ...

    def said(self, stage: str, message: str) -> None:
        """A sentence for a person: rows skipped, a bound passed, what is being waited for."""

    def stage_ended(self, stage: str, summary: Mapping[str, object]) -> None: ...


class Phases:
    """Seconds per phase of one step: `with phases.phase("sample"): ...`, then `take()` at the step's end."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's wall-clock seconds to `name`, also when the block raises."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - began

    def total(self) -> float:
        """All seconds counted since the last `take`."""
        return sum(self._seconds.values())

    def take(self) -> dict[str, float]:
        """The seconds since the last `take`, and start anew."""
        seconds, self._seconds = self._seconds, {}
        return seconds


class MetricsLog:
    """Appends each step to `metrics.jsonl` and TensorBoard, then tells the listener.

    A line is on the disk before `append` returns: a checkpoint that is made after it has it, whatever happens. Values
    that are not finite are written as null.
    """

    def __init__(self, folder: Path, listener: Listener) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / METRICS_FILE
        self._listener = listener
        _rewrite(self._path, _whole_lines(self._path))
        self._file: IO[str] = self._path.open("a", encoding="utf-8")
        self._events = _Events(folder / TENSORBOARD_FOLDER)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, record: StepRecord) -> None:
        now = time.time()
        content = {
            "stage": record.stage,
            "step": record.step,
            "num_steps": record.num_steps,
            "metrics": finite(record.metrics),
            "seconds": finite(record.seconds),
            "time": round(now, 3),
        }
        with naming(self._path):
            self._file.write(json.dumps(content, allow_nan=False) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        self._events.add(_event(record, now))
        self._listener.stepped(record)

    def said(self, stage: str, message: str) -> None:
        """Tell the listener a sentence."""
        self._listener.said(stage, message)

    def truncate_after(self, step: int) -> None:
        """Drop the steps past `step`, as resuming from its checkpoint does; they are about to be made again."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self._file.close()
        _rewrite(self._path, [line for line in _whole_lines(self._path) if json.loads(line)["step"] <= step])
        self._file = self._path.open("a", encoding="utf-8")
        # TensorBoard hides the events of an older file from this step on.
        restart = SessionLog(status=SessionLog.START)
        self._events.add(Event(wall_time=time.time(), step=step + 1, file_version=EVENTS_VERSION))
        self._events.add(Event(wall_time=time.time(), step=step + 1, session_log=restart))

    def close(self) -> None:
        try:
            with naming(self._path):  # A write that failed is tried again.
                self._file.close()
        finally:
            self._events.close()


class _Events:
    """TensorBoard's file of events, each the system's to write before `add` returns.

    TensorBoard's own writer does that in a thread, whose errors come a step late and with a traceback.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(exist_ok=True)
        now, number = time.time(), len(list(folder.iterdir()))
        self._path = folder / f"events.out.tfevents.{now:010.0f}.{socket.gethostname()}.{os.getpid()}.{number}"
        self._file = self._path.open("wb")
        self._records = RecordWriter(self._file)
        self.add(Event(wall_time=now, file_version=EVENTS_VERSION))

    def add(self, event: Any) -> None:
        with naming(self._path):
            self._records.write(event.SerializeToString())
            self._file.flush()

    def close(self) -> None:
        with naming(self._path):
            self._file.close()


def read_metrics(folder: Path) -> list[StepRecord]:
    """The steps in `folder`'s metrics file, null read as NaN; a torn last line is left out. None without a file."""
    records = []
    for line in _whole_lines(folder / METRICS_FILE):
        content = json.loads(line)
        metrics, seconds = (
            {name: math.nan if value is None else value for name, value in content[part].items()}
            for part in ("metrics", "seconds")
        )
        records.append(StepRecord(content["stage"], content["step"], content["num_steps"], metrics, seconds))
    return records


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """The values with None for what JSON has no number for."""
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}


def _whole_lines(path: Path) -> list[str]:
    """A process killed while it writes leaves a last line without an end: that step is not on record."""
    if not path.exists():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def _rewrite(path: Path, lines: list[str]) -> None:
    """Replace the file at once, and for good: no power loss may bring back one that nothing is appended to any more."""
    replace_text(path, "".join(lines))
    flush(path.parent)


def _event(record: StepRecord, now: float) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = dict(record.metrics)
    values |= {f"seconds/{phase}": value for phase, value in record.seconds.items()}
    points = [Summary.Value(tag=f"{record.stage}/{tag}", simple_value=value) for tag, value in values.items()]
    return Event(wall_time=now, step=record.step, summary=Summary(value=points))
