"""Hosts that are avoided for a while: workers failed to start there twice, or were killed for want of memory."""

import time
from collections import defaultdict

NO_MEMORY_S = 5.0
"""How long a host is left alone that had no memory left: while that is so, Ray kills whoever starts there."""


class UnfitHosts:
    """Hosts where a worker could not begin, twice within `duration_s`: they are left alone until that is over."""

    def __init__(self, duration_s: float) -> None:
        self._duration_s = duration_s
        self._failed: dict[str, list[float]] = defaultdict(list)

    def failed(self, node_id: str) -> None:
        self._failed[node_id].append(time.monotonic())

    def now(self) -> set[str]:
        """Their nodes' ids."""
        since = time.monotonic() - self._duration_s
        return {node_id for node_id, times in self._failed.items() if sum(at > since for at in times) > 1}
