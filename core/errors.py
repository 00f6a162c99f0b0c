"""The ways in which a run ends early: a person's mistake, something that went wrong on the way, and being asked to."""


class UserError(ValueError):
    """Something that the user can mend: the message says where it is, what was expected and what to do.

    The command line prints it without a traceback and ends with status 2.
    """


class NotRunningError(UserError):
    """No run goes on where one was looked for."""


class RunFailed(RuntimeError):  # noqa: N818 - a run fails, it is not an error of the caller
    """The run cannot go on: the message says what happened and where. The command line ends with status 1."""


class RunStopped(RunFailed):
    """Somebody asked the run to stop; it can be resumed."""


def first_line(error: BaseException) -> str:
    """Of what it says, without a full stop; of one that says nothing its name."""
    said = str(error).strip() or type(error).__name__
    return said.splitlines()[0].rstrip(".")


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
