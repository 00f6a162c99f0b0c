"""A process beside another (`AfterDeath`): when that dies, however it does, what it has started is ended and removed.

This file is the process's program too, which imports nothing but the standard library, so that it starts at once.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


class AfterDeath:
    """From now until `cancel`, the death of this process ends process groups and removes a folder.

    It is noticed by the end of a pipe, whose other end this process alone has.

    Args:
        groups: ids of process groups.
    """

    def __init__(self, groups: Iterable[int], folder: Path) -> None:
        command = [sys.executable, "-I", "-S", __file__, str(folder), *map(str, groups)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def cancel(self) -> None:
        self._process.kill()
        self._process.communicate()


def main(folder: str, *groups: str) -> None:
    sys.stdin.buffer.read()
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(int(group), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
