"""A sink that is somewhere else, and neither ends a run nor holds it up, whatever it does (`GuardedSink`)."""

from collections.abc import Callable
from queue import Full, Queue
from threading import Event, Thread

from plumbob.core.errors import first_line
from plumbob.core.outside import MAX_REASON
from plumbob.trainers.metrics.sinks.metric_sink import MetricSink
from plumbob.trainers.metrics.step_record import StepRecord

MAX_WAITING = 1000
"""Steps that a slow sink may be behind; then it counts as one that hangs."""

CLOSE_S = 30.0
"""How long a run waits at its end for what a sink has not taken yet."""

Call = Callable[[MetricSink], None]


class GuardedSink:
    """Opens, writes and closes in a thread of its own; the first failure is reported, by whichever call comes next.

    One that could not be opened, or that hangs, is given up. One that failed on a step is given the next all the same.

    Args:
        name: by which it is reported.
        open_sink: opens it; whatever that raises is a failure.
        notify: for the user; called in the thread that calls this sink.
    """

    def __init__(
        self,
        name: str,
        open_sink: Callable[[], MetricSink],
        notify: Callable[[str], None],
        max_waiting: int = MAX_WAITING,
        close_s: float = CLOSE_S,
    ) -> None:
        self._name, self._notify, self._close_s = name, notify, close_s
        self._calls: Queue[Call | None] = Queue(max_waiting)
        self._failure: str | None = None
        self._has_notified = False
        self._is_given_up = Event()
        self._thread = Thread(target=self._work, args=(open_sink,), name=f"sink {name}", daemon=True)
        self._thread.start()

    def append(self, record: StepRecord, now: float) -> None:
        self._put(lambda sink: sink.append(record, now))

    def truncate_after(self, step: int) -> None:
        self._put(lambda sink: sink.truncate_after(step))

    def close(self, has_failed: bool) -> None:
        """Waits for what it has not taken yet, so long as a run may be held up by it."""
        self._put(lambda sink: sink.close(has_failed))
        self._put(None)
        if not self._is_given_up.is_set():
            self._thread.join(self._close_s)
            if self._thread.is_alive():
                self._fail(f"has not taken everything {self._close_s:g} s after the end: its last steps may be missing")
        self._say_failure()

    def _put(self, call: Call | None) -> None:
        self._say_failure()
        if self._is_given_up.is_set():
            return
        try:
            self._calls.put_nowait(call)
        except Full:
            self._fail(f"has not taken the last {self._calls.maxsize} calls, and is given no more")
            self._is_given_up.set()
            self._say_failure()

    def _fail(self, how: str) -> None:
        self._failure = self._failure or how

    def _say_failure(self) -> None:
        if self._failure is not None and not self._has_notified:
            self._has_notified = True
            self._notify(f"{self._name} {self._failure}; the run continues, and its own folder has everything")

    # ------------------------------------------------------------------------------------------------ in its own thread

    def _work(self, open_sink: Callable[[], MetricSink]) -> None:
        try:
            sink = open_sink()
        except BaseException as error:
            self._fail(f"cannot be opened: {_described(error)}")
            self._is_given_up.set()
            return
        while (call := self._calls.get()) is not None and not self._is_given_up.is_set():
            try:
                call(sink)
            except BaseException as error:
                self._fail(f"failed, and is tried again at the next step: {_described(error)}")


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)[:MAX_REASON]}"
