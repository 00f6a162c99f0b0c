"""How a run that was followed ended (FollowedEnding)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FollowedEnding:
    """What is known of it.

    Attributes:
        how: "finished", "stopped", "failed" or "refused"; "ended" where nothing but that is known; "unknown" where its
            driver is on another host and has long been silent.
        why: in words; empty where it finished.
    """

    how: str
    why: str
