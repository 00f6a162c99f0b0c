"""The errors that end a run, as one tree: what the user can fix, what failed on the way, and being asked to stop.

    ValueError
    └── UserError                 the user can fix it; exit status 2
        └── NotRunningError       no run is running where one was looked for
    RuntimeError
    └── RunFailed                 the run cannot continue; exit status 1
        ├── RunStopped            somebody asked it to stop; it can be resumed
        │   └── RunPreempted      the system did, by a signal; exit status 75
        ├── NotFinite             a log-probability, value or loss is NaN or infinite
        ├── ScoreError            a score is NaN or infinite                            (reward/scorer.py)
        ├── StaleRollouts         tokens older than the learner may train on
        ├── PublishError          a worker does not hold the policy that was published  (rollout/publish_proof.py)
        ├── RolloutsLost          sampled responses are gone with their host            (cluster/failures.py)
        ├── StorageFailed         a disk is full or broken                              (core/disk_errors.py)
        ├── EnvironmentFailed     an episode's environment failed     (rollout/environments/environment_protocol.py)
        ├── SandboxRefused        this host gives a program no sandbox                  (reward/programs/sandbox.py)
        ├── WorkerFailed          a worker raised an unexpected error                   (cluster/failures.py)
        └── WorkerLost            a worker died or did not answer; another replaces it  (cluster/failures.py)
            ├── UnfitHost         it could not begin on its host
            └── LearnersLost      a learner rank is gone, and with it the group

A new one stands where its idea is, derives from one of these, and is drawn here.
"""

NUM_NAMED = 8
"""Rows that an error names at most."""


class UserError(ValueError):
    """Something that the user can fix: the message says where it is, what was expected and what to do.

    The command line prints it without a traceback and ends with status 2.
    """


class NotRunningError(UserError):
    """No run is running where one was looked for."""


class RunFailed(RuntimeError):  # noqa: N818 - a run fails, it is not an error of the caller
    """The run cannot continue: the message says what happened and where. The command line ends with status 1."""


class RunStopped(RunFailed):
    """Somebody asked the run to stop; it can be resumed."""


class RunPreempted(RunStopped):
    """Whoever started the process asks it to end: a time limit, a host that is drained, a terminal that has gone.

    The command line ends with a status of its own, by which a scheduler can tell that it may be started again.
    """


class NotFinite(RunFailed):
    """A log-probability, a value or a loss is NaN or infinite.

    Attributes:
        rows: which rows of the batch caused it, 0-based; empty when it is not known.
    """

    def __init__(self, message: str, rows: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.rows = rows


class StaleRollouts(RunFailed):
    """Tokens are older than the learner may train on."""


def first_line(error: BaseException) -> str:
    """Of what it says, without a full stop; of one that says nothing its name."""
    message = str(error).strip() or type(error).__name__
    return message.splitlines()[0].rstrip(".")
