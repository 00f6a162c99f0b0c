"""A process that dies by SIGKILL, with one of its own in another group, which by itself would live on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from plumbob.cluster.calls import wait_until
from plumbob.core.process_ends.after_death import AfterDeath

DIES = """
import os, signal, subprocess, sys
from pathlib import Path
from plumbob.core.process_ends.after_death import AfterDeath
left = subprocess.Popen(["sleep", "300"], process_group=0)
AfterDeath([left.pid], Path(sys.argv[1]))
print(left.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
BOUND_S = 60.0


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_what_a_dead_process_left_is_ended_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    (folder / "logs").mkdir(parents=True)
    died = subprocess.run([sys.executable, "-c", DIES, str(folder)], stdout=subprocess.PIPE, text=True, timeout=BOUND_S)
    assert died.returncode == -signal.SIGKILL
    left = int(died.stdout)
    assert wait_until(lambda: not folder.exists() and not _lives(left), BOUND_S)


def test_one_that_is_cancelled_does_nothing(tmp_path: Path) -> None:
    left = subprocess.Popen(["sleep", "300"], process_group=0)
    try:
        AfterDeath([left.pid], tmp_path).cancel()
        assert left.poll() is None and tmp_path.exists()
    finally:
        os.killpg(left.pid, signal.SIGKILL)
        left.wait()
