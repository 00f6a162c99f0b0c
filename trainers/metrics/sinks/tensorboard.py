"""Each step as an event of TensorBoard."""

import os
import socket
import time
from pathlib import Path
from typing import Any

from plumbob.core.disk_errors import naming_file
from plumbob.trainers.metrics.step_record import StepRecord

TENSORBOARD_FOLDER = "tensorboard"
EVENTS_VERSION = "brain.Event:2"


class TensorBoardSink:
    """TensorBoard's file of events, each the system's to write before `append` returns.

    TensorBoard's own writer does that in a thread, whose errors come a step late and with a traceback.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        events = folder / TENSORBOARD_FOLDER
        events.mkdir(exist_ok=True)
        now, number = time.time(), len(list(events.iterdir()))
        self._path = events / f"events.out.tfevents.{now:010.0f}.{socket.gethostname()}.{os.getpid()}.{number}"
        self._file = self._path.open("wb")
        self._records = RecordWriter(self._file)
        self._add(Event(wall_time=now, file_version=EVENTS_VERSION))

    def append(self, record: StepRecord, now: float) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = dict(record.metrics)
        values |= {f"seconds/{phase}": value for phase, value in record.seconds.items()}
        values |= {f"joules/{phase}": value for phase, value in record.joules.items()}
        points = [Summary.Value(tag=f"{record.stage}/{tag}", simple_value=value) for tag, value in values.items()]
        self._add(Event(wall_time=now, step=record.step, summary=Summary(value=points)))

    def truncate_after(self, step: int) -> None:
        """TensorBoard hides the events of an older file from this step on."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        restart = SessionLog(status=SessionLog.START)
        self._add(Event(wall_time=time.time(), step=step + 1, file_version=EVENTS_VERSION))
        self._add(Event(wall_time=time.time(), step=step + 1, session_log=restart))

    def close(self, has_failed: bool) -> None:
        with naming_file(self._path):
            self._file.close()

    def _add(self, event: Any) -> None:
        with naming_file(self._path):
            self._records.write(event.SerializeToString())
            self._file.flush()
