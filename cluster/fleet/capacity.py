"""Room for workers: told when it runs short, and asked and waited for where there is none at all."""

import time
from collections.abc import Callable

from plumbob.cluster.calls import BOOT_TIMEOUT
from plumbob.core.errors import RunFailed

PATIENCE_S = 5.0
"""How long free room is waited for, as Ray's report is a moment old; then others are asked to make some, and again."""


class CapacityWait:
    """For room that others are asked to make, as long as it lasts.

    Args:
        bound_s: how long at most.
    """

    def __init__(self, bound_s: float, make_room: Callable[[], None]) -> None:
        self._bound_s, self._make_room = bound_s, make_room
        self._began = self._asked = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return time.monotonic() - self._began

    def goes_on(self) -> bool:
        """False past the bound. Called again and again until there is room; asks others when it is time to."""
        if self.seconds > self._bound_s:
            return False
        if time.monotonic() - self._asked > PATIENCE_S:
            self._asked = time.monotonic()
            self._make_room()
        return True


class Capacity:
    """Whether hosts have room for as many workers of a role as are wanted.

    Args:
        bound_s: how long room is waited for once nobody is left.
        make_room: asks others to go.
        lacking: says why there is none.
    """

    def __init__(
        self,
        role: str,
        bound_s: float,
        said: Callable[[str], None],
        make_room: Callable[[], None],
        lacking: Callable[[], str],
    ) -> None:
        self._role, self._bound_s, self._said = role, bound_s, said
        self._make_room, self._lacking = make_room, lacking
        self._is_short = False
        self._wait: CapacityWait | None = None

    def sufficed(self) -> None:
        self._is_short, self._wait = False, None

    def lacked(self, num_left: int) -> None:
        """Work goes on with those that are left.

        Raises:
            RunFailed: nobody has been left for as long as the bound.
        """
        if num_left:
            if not self._is_short:
                self._said(f"no host has room for another {self._role} worker; going on with {num_left}")
            self._is_short, self._wait = True, None
            return
        bound = f"{self._bound_s:g} s ({BOOT_TIMEOUT})"
        if self._wait is None:
            self._wait = CapacityWait(self._bound_s, self._make_room)
            self._said(f"waiting up to {bound} for room for a {self._role} worker, as there is none: {self._lacking()}")
        elif not self._wait.goes_on():
            raise RunFailed(f"no room for a {self._role} worker after {bound}, and there is none: {self._lacking()}")
