"""A process beside another (`AfterDeath`): when that dies, however it does, what it has started is ended and removed.

This file is the process's program too, which imports nothing but the standard library, so that it starts at once.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


class AfterDeath:
    """From now until `cancel`, the death of this process ends process groups and removes a folder.

    It is noticed by the end of a pipe, whose other end this process alone has.

    Args:
        groups: ids of process groups.
        grace_s: how long these may take to end by themselves.
    """

    def __init__(self, groups: Iterable[int], folder: Path, grace_s: float = 0.0) -> None:
        command = [sys.executable, "-I", "-S", __file__, str(folder), str(grace_s), *map(str, groups)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def cancel(self) -> None:
        self._process.kill()
        self._process.communicate()


def main(folder: str, grace_s: str, *groups: str) -> None:
    sys.stdin.buffer.read()
    deadline = time.monotonic() + float(grace_s)
    while time.monotonic() < deadline and any(_is_there(int(group)) for group in groups):
        time.sleep(0.05)
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(int(group), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
