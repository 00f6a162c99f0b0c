"""A file system of its own that is soon full."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from plumbob.cluster.calls import wait_until
from tests.support.host_requirements import cannot

UNMOUNT_S = 120.0


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A folder that holds no more than that, such as "1m"; where none can be mounted the test cannot be."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            cannot("mounting a small file system needs root")
        try:
            yield Path(folder)
        finally:
            # Workers that are ending still have their files open.
            unmount = ["umount", folder]
            assert wait_until(lambda: subprocess.run(unmount, capture_output=True).returncode == 0, UNMOUNT_S)


def fill(folder: Path) -> Path:
    """Write until no byte more goes in; the file that takes the room."""
    path = folder / "filling"
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    return path
