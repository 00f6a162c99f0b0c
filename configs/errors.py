"""The two ways in which a run ends early: a person's mistake, and something that went wrong on the way."""


class UserError(ValueError):
    """Something that the user can mend: the message says where it is, what was expected and what to do.

    The command line prints it without a traceback and ends with status 2.
    """


class RunFailed(RuntimeError):  # noqa: N818 - a run fails, it is not an error of the caller
    """The run cannot go on: the message says what happened and where. The command line ends with status 1."""


class RunStopped(RunFailed):
    """Somebody asked the run to stop; it can be resumed."""
