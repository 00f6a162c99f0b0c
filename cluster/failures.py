"""How workers are lost or fail: the errors that a fleet recovers from."""

from plumbob.core.errors import RunFailed


class WorkerLost(RunFailed):
    """A worker died, its host went away, or it did not answer in time; another could do its work.

    Args:
        oom_killed: the name of the worker that Ray killed because its host had no memory left, where that is how.
        crash: the signal by which it ended itself, such as "SIGILL", where that is how.

    Attributes:
        has_worked: it had done some of its work before; said by whoever gave it work.
    """

    def __init__(self, message: str, oom_killed: str | None = None, crash: str | None = None) -> None:
        super().__init__(message)
        self.oom_killed, self.crash = oom_killed, crash
        self.has_worked = False


class WorkerFailed(RunFailed):
    """A worker raised an unexpected error. It lives; another may fare better."""


class UnfitHost(WorkerLost):
    """A worker could not begin on its host, where others of its kind could on theirs."""


class RolloutsLost(RunFailed):
    """Responses that were sampled are gone with the host that had them: their step has to be made again."""


class LearnersLost(WorkerLost):
    """A learner rank was lost, and with it the group: what the others hold has to be read from a checkpoint again."""
