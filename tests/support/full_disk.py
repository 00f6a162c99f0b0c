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

SMALL_DISK = "small-disk"
"""What such a disk is called among the machine's mounts."""

UNMOUNT_S = 120.0


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A folder that holds no more than that, such as "1m"; where none can be mounted the test cannot be."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0 or not _ends_well("mount", "-t", "tmpfs", "-o", f"size={size}", SMALL_DISK, folder):
            cannot("mounting a small file system needs root")
        try:
            yield Path(folder)
        finally:
            # Workers that are ending still have their files open.
            assert wait_until(lambda: _ends_well("umount", folder), UNMOUNT_S)


def _ends_well(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, timeout=UNMOUNT_S).returncode == 0


def fill(folder: Path) -> Path:
    """Write until no byte more goes in; the file that takes the room."""
    path = folder / "filling"
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    return path
