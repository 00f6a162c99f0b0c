"""Spans of time of whoever works, as a trace file that Perfetto and Chromium open (`spans`)."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

Receiver = Callable[[str, str, float, float], None]
"""Called with a span's row, what was done, and when it began and ended, in seconds since 1970; from any thread."""

END = b"\n]\n"
MAIN_ROW = "driver"


class Spans:
    """Written to a file while one is open, told to receivers, and otherwise not kept; the process has one, `spans`.

    The format is the array of Chrome's trace events ("Trace Event Format"): complete events (`ph` X) with times in
    microseconds since 1970. A row is a thread there, and what is within another span of its row is shown below it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._rows: dict[str, int] = {}
        self._comma = b""
        self._offset_s = 0.0
        self._is_wanted = False
        self._receivers: tuple[Receiver, ...] = ()

    def request(self) -> None:
        """Whoever can write spans to a file from now on shall do that."""
        self._is_wanted = True

    def add_receiver(self, receiver: Receiver) -> None:
        """Tell it of every span that ends from now on."""
        with self._lock:
            self._receivers = (*self._receivers, receiver)

    def remove_receiver(self, receiver: Receiver) -> None:
        with self._lock:
            self._receivers = tuple(one for one in self._receivers if one != receiver)

    @contextmanager
    def written_if_requested(self, path: Path) -> Iterator[None]:
        """`written_to`, if that was requested."""
        with self.written_to(path) if self._is_wanted else nullcontext():
            yield

    @contextmanager
    def written_to(self, path: Path) -> Iterator[None]:
        """Write all spans that end in the block. What an earlier process left in the file stays, whole or not.

        Raises:
            OSError: the file cannot be written.
        """
        with path.open("ab+") as file:
            is_first = _is_empty_without_end(file)
            with self._lock:
                self._file, self._rows, self._offset_s = file, {}, time.time() - time.monotonic()
                self._comma = b"" if is_first else b",\n"
            try:
                yield
            finally:
                with self._lock:
                    self._file = None
                    file.write(END)

    def record(self, row: str, doing: str, began: float) -> None:
        """A span that ends now. `began`: of `time.monotonic`. Raises OSError where the disk is full."""
        ended = time.monotonic()
        if self._receivers:
            since_1970_s = time.time() - ended
            for receiver in self._receivers:
                receiver(row, doing, began + since_1970_s, ended + since_1970_s)
        with self._lock:
            if self._file is None:
                return
            number = self._rows.get(row)
            if number is None:
                number = self._rows[row] = len(self._rows)
                self._write({"name": "thread_name", "ph": "M", "pid": 0, "tid": number, "args": {"name": row}})
            began_us, ended_us = (round((at + self._offset_s) * 1e6) for at in (began, ended))
            span = {"name": doing, "ph": "X", "pid": 0, "tid": number, "ts": began_us, "dur": ended_us - began_us}
            self._write(span)

    def record_here(self, doing: str, began: float) -> None:
        """`record` in the row of the thread that calls."""
        thread = threading.current_thread()
        self.record(MAIN_ROW if thread is threading.main_thread() else thread.name, doing, began)

    def _write(self, event: dict[str, object]) -> None:
        assert self._file is not None
        self._file.write(self._comma + json.dumps(event).encode())
        self._comma = b",\n"


def _is_empty_without_end(file: BinaryIO) -> bool:
    """Take off the end of an array that ended, or the line that a killed process was at; whether no event is left."""
    file.seek(0)
    content = file.read()
    whole = len(content) - len(END) if content.endswith(END) else content.rfind(b"},\n") + 1
    file.truncate(whole if whole > len(b"[\n") else 0)
    if whole <= len(b"[\n"):
        file.write(b"[\n")
        return True
    return False


spans = Spans()
