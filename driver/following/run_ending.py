"""How a run that was followed ended (RunEnding)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RunEnding:
    """What is known of it.

    Attributes:
        how: "finished", "stopped", "failed" or "refused"; "ended" where nothing but that is known.
        why: in words; empty where it finished.
    """

    how: str
    why: str
