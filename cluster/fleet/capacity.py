"""Waiting for capacity: how long a shortage lasts, when others are evicted, and when it ends the run."""

import time

from plumbob.cluster.calls import BOOT_TIMEOUT
from plumbob.cluster.fleet.pool_backend import PoolBackend
from plumbob.core.errors import RunFailed

PATIENCE_S = 5.0
"""How long free capacity is waited for, as Ray's report is a moment old; then others are evicted."""

AGAIN_S = 10.0
"""How long what they free is waited for before more are evicted: a worker has to end and Ray to say so."""


class CapacityWait:
    """A wait for capacity that nobody has.

    Args:
        bound_s: how long at most.
    """

    def __init__(self, bound_s: float) -> None:
        self._bound_s = bound_s
        self._began = time.monotonic()
        self._evict_at = self._began + PATIENCE_S

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return time.monotonic() - self._began

    @property
    def is_over(self) -> bool:
        return self.seconds > self._bound_s

    def shall_evict(self) -> bool:
        """True after PATIENCE_S, and then once every AGAIN_S; whoever asks evicts others then."""
        is_due = time.monotonic() > self._evict_at
        if is_due:
            self._evict_at = time.monotonic() + AGAIN_S
        return is_due


class ShortageTracker:
    """Whether hosts have the capacity for as many workers of a role as are wanted.

    Args:
        bound_s: how long it is waited for once nobody is left.
    """

    def __init__(self, role: str, bound_s: float, backend: PoolBackend) -> None:
        self._role, self._bound_s, self._backend = role, bound_s, backend
        self._is_short = False
        self._wait: CapacityWait | None = None

    def handle_enough(self) -> None:
        """As many as are wanted are there."""
        self._is_short, self._wait = False, None

    def handle_shortage(self, num_left: int) -> None:
        """Fewer are there than are wanted, who work on.

        Raises:
            RunFailed: nobody has been left for as long as the bound.
        """
        if num_left:
            if not self._is_short:
                self._backend.notify(f"no host has capacity for another {self._role} worker; running with {num_left}")
            self._is_short, self._wait = True, None
            return
        bound = f"{self._bound_s:g} s ({BOOT_TIMEOUT})"
        if self._wait is None:
            self._wait = CapacityWait(self._bound_s)
            self._backend.notify(
                f"waiting up to {bound} for capacity for a {self._role} worker, and no worker is left: "
                f"{self._backend.shortage()}"
            )
        elif self._wait.is_over:
            raise RunFailed(
                f"no capacity for a {self._role} worker after {bound}, and no worker is left: "
                f"{self._backend.shortage()}"
            )
        elif self._wait.shall_evict():
            self._backend.evict()
