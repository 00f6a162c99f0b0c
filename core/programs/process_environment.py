"""How a process with code of the user's begins, which variables of the environment it sees, and its scratch folder."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import plumbob
from plumbob.core.errors import UserError
from plumbob.core.outside import reason_of
from plumbob.core.programs.users_code import BEGIN

KEPT_ENVIRONMENT = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TZ", "LANG", "LANGUAGE", "PYTHONPATH", "LD_LIBRARY_PATH"),
    *("VIRTUAL_ENV", "OMP_NUM_THREADS", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    # The GPU that Ray gave the worker: another one is somebody else's.
    *("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
)
"""What such a process sees of its worker's environment, beside LC_*, a TMPDIR of its own and what it asks for."""


def command_of(module: str) -> list[str]:
    """What starts a Python process in which the `main` of a module of ours runs."""
    ours = str(Path(plumbob.__path__[0]).parent)
    return [sys.executable, "-E", "-P", "-u", "-c", BEGIN.format(ours=ours, module=module)]


def kept_environment(code: str, setting: str, names: Sequence[str]) -> dict[str, str]:
    """The variables that the process of a user's code sees.

    Args:
        code: names the code in a message, as `function=my_reward.py:score`.
        setting: the setting that `names`, the variables that it asks for, stand in.

    Raises:
        UserError: a variable that it asks for is not set.
    """
    missing = next((name for name in names if name not in os.environ), None)
    if missing is not None:
        raise UserError(
            f"{code}: {setting} has {missing}, which is not set here; set it where the run's Ray is started, on every "
            f"host"
        )
    kept = (*KEPT_ENVIRONMENT, *(name for name in os.environ if name.startswith("LC_")), *names)
    return {name: os.environ[name] for name in kept if name in os.environ}


@contextmanager
def starting(code: str, prefix: str) -> Iterator[Path]:
    """A scratch folder for a process that is started inside; where it does not start, nothing is left of the folder.

    Args:
        code: names the code in a message, as `function=my_reward.py:score`.
        prefix: of the folder's name.

    Raises:
        UserError: the system does not start it.
    """
    scratch = None
    try:
        scratch = Path(tempfile.mkdtemp(prefix=prefix))
        yield scratch
    except BaseException as error:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(
                f"{code}: its process cannot be started: {reason_of(error)}; see that {sys.executable} and "
                f"{tempfile.gettempdir()} can be used by you"
            ) from error
        raise
