"""Room for another worker of a pool: told when it runs short, and asked and waited for once nobody is left."""

import time
from collections.abc import Callable

from cluster.health import BOOT_TIMEOUT
from configs.errors import RunFailed

PATIENCE_S = 5.0
"""How long free room is waited for, as Ray's report is a moment old; then others are asked to make some, and again."""


class Room:
    """Whether hosts have room for as many workers of a role as are wanted."""

    def __init__(self, role: str, bound_s: float, said: Callable[[str], None], make_room: Callable[[], None]) -> None:
        self._role, self._bound_s, self._said, self._make_room = role, bound_s, said, make_room
        self._is_short = False
        self._empty_since: float | None = None
        self._asked = 0.0

    def sufficed(self) -> None:
        self._is_short, self._empty_since = False, None

    def lacked(self, num_left: int) -> None:
        """Work goes on with those that are left.

        Raises:
            RunFailed: nobody has been left for as long as the bound.
        """
        now = time.monotonic()
        if not self._is_short:
            self._is_short = True
            self._said(f"no host has room for another {self._role} worker; going on with {num_left}")
        if num_left:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = self._asked = now
        elif now - self._empty_since > self._bound_s:
            waited = f"for {self._bound_s:.0f} s ({BOOT_TIMEOUT})"
            raise RunFailed(f"no host had room for a {self._role} worker {waited}, and none is left")
        elif now - self._asked > PATIENCE_S:
            self._asked = now
            self._make_room()
