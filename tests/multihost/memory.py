"""A host that has no memory left."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.multihost.hosts import SimulatedHost

MEMORY = "/proc/meminfo"
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where control groups of either version say how much of the machine's memory a container has."""

MOUNT_S = 20.0


@contextmanager
def out_of_memory(host: SimulatedHost) -> Iterator[None]:
    """The kernel's figures are pretended, to this host alone; that its Ray kills workers for want of memory is real.

    They are a file over the host's own /proc/meminfo, gone with its namespaces at the latest. Ray goes by the lesser of
    these figures and those of a container; so the total is less.
    """
    limits = [text for path in LIMITS if path.exists() and (text := path.read_text().strip()).isdigit()]
    total_kb = min([psutil.virtual_memory().total, *map(int, limits)]) // 1024 - 1
    figures = rf"s/^(MemTotal): .*/\1: {total_kb} kB/; s/^(MemFree|MemAvailable|SwapFree): .*/\1: 1 kB/"
    _run(host, f"sed -E '{figures}' {MEMORY} > /tmp/meminfo && mount -n --bind /tmp/meminfo {MEMORY}")
    try:
        yield
    finally:
        _run(host, f"umount -n {MEMORY}")


def _run(host: SimulatedHost, script: str) -> None:
    done = host.run(["sh", "-c", script], MOUNT_S)
    if done.returncode:
        raise RuntimeError(f"{host.name}: {done.stderr.strip()}")
