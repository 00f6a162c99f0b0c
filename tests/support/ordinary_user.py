"""A program as a user without any right runs it: by root, who becomes one."""

import os
import subprocess
import sys

import pytest

from tests.support.source_tree import ROOT

AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs")


def printed_as_nobody(code: str, *arguments: str) -> str:
    """What a Python program prints that imports the checkout; the test is skipped where nobody can be or read it."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    variables = {"HOME": "/nonexistent", "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*AS_NOBODY, sys.executable, "-c"]
    reads = subprocess.run([*command, "import plumbob, tests"], cwd=ROOT, env=variables, capture_output=True, text=True)
    if reads.returncode != 0:
        pytest.skip(f"another user cannot run this checkout's Python: {reads.stderr.strip()[-200:]}")
    done = subprocess.run(
        [*command, code, *arguments], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
