"""A program as a user without any right runs it: by root, who becomes one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.source_tree import ROOT

AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs")

SHOWN = ("unshare", "--mount", "--propagation=private", "sh", "-ec")
"""Where root keeps Python in its own home: for the program alone another folder stands there, with Python in it."""

SHOW = (
    'mount --bind "$1" /mnt; mount -t tmpfs -o mode=755 none "$2"; mkdir -p "$1"; mount --move /mnt "$1"; '
    'shift 2; exec "$@"'
)


def printed_as_nobody(code: str, *arguments: str) -> str:
    """What a Python program prints that imports the checkout; the test is skipped where nobody can be or read it."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    variables = {"HOME": "/nonexistent", "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    python = Path(sys.base_prefix).resolve()
    closed = [folder for folder in (*reversed(python.parents), python) if not folder.stat().st_mode & 0o001]
    begin = [*SHOWN, SHOW, "-", str(python), str(closed[0])] if closed else []
    command = [*begin, *AS_NOBODY, sys.executable, "-c"]
    probe = "import subprocess, sys, plumbob, tests; subprocess.run([sys.executable, '-c', ''], check=True)"
    reads = subprocess.run([*command, probe], cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    if reads.returncode != 0:
        pytest.skip(f"another user cannot run this checkout's Python: {reads.stderr.strip()[-200:]}")
    done = subprocess.run(
        [*command, code, *arguments], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
