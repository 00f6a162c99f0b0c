"""What goes wrong while learning."""

from configs.errors import RunFailed

NUM_NAMED = 8
"""Rows that an error names at most."""


class NotFinite(RunFailed):
    """A score, a log-probability, a value or a loss is NaN or infinite.

    Attributes:
        rows: which rows of the batch caused it, 0-based; empty when it is not known.
    """

    def __init__(self, message: str, rows: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.rows = rows


class StaleRollouts(RunFailed):
    """Tokens are older than the learner may train on."""
