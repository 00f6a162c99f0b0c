"""A run followed through its control actor, where its folder is not reachable: its status each time (ControlFeed)."""

from collections.abc import Callable

from plumbob.cluster.run_status import RunStatus, counts_by_state
from plumbob.core.errors import NotRunningError
from plumbob.driver.following.followed_ending import FollowedEnding
from plumbob.trainers.metrics.step_record import Listener


class ControlFeed:
    """Tells `listener` what the status says that it did not say before: of steps between two looks the last.

    Args:
        ask: the status of the run now, None before its first; raises NotRunningError when it is running no more.
    """

    def __init__(self, ask: Callable[[], RunStatus | None], listener: Listener) -> None:
        self._ask, self._listener = ask, listener
        self._last: RunStatus | None = None

    def poll(self) -> FollowedEnding | None:
        """Tell what is new; None while the run is running. How one ended that is gone its control actor cannot say."""
        try:
            status = self._ask()
        except NotRunningError as error:
            if self._last is None:
                raise
            return FollowedEnding("ended", str(error))
        if status is not None:
            self._tell(status, self._last)
            self._last = status
        return None

    def _tell(self, status: RunStatus, last: RunStatus | None) -> None:
        if status.stage is not None and (last is None or status.stage != last.stage):
            self._listener.stage_began(status.stage)
        if status.step is not None and (last is None or status.step != last.step):
            self._listener.stepped(status.step)
        if status.last_message and last is not None and status.last_message != last.last_message:
            self._listener.notify(status.stage or "run", status.last_message)
        self._listener.workers_changed(counts_by_state(status.workers))
