"""Repeated crashes: workers that crash in the same way before any work is done show what a machine cannot do."""

from collections import Counter

from plumbob.cluster.failures import WorkerLost
from plumbob.core.errors import RunFailed

MAX_CRASHES = 2
"""Of one role by one signal: a second worker fares as the first, and so would all others."""

WHAT_TO_TRY = {
    "rollout": "policy.dtype=float32, or rollout.engine.kind=transformers",
    "learner": "policy.dtype=float32 with learner.autocast=false",
    "scorer": "another machine, or another build of torch",
}


class RepeatedCrashes:
    """Counts crashes of workers that had done nothing yet, by role and signal; work that is done forgives them."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def record(self, lost: WorkerLost, role: str) -> None:
        """Raises RunFailed where it is the second in the same way: replacing it again would end the same."""
        if lost.crash is None or lost.has_worked:
            return
        self._counts[role, lost.crash] += 1
        if self._counts[role, lost.crash] >= MAX_CRASHES:
            noun = "rollout worker" if role == "rollout" else role
            raise RunFailed(
                f"{lost}\nthat is {noun} number {MAX_CRASHES} to crash by {lost.crash} before it had done anything: "
                f"its machine cannot do what is asked, and another one would end the same; try {WHAT_TO_TRY[role]}"
            ) from lost

    def forgive(self) -> None:
        self._counts.clear()
