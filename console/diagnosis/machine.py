"""The machine: its devices, memory and disk, and whether processes reach one another on it."""

import shutil
import socket
from pathlib import Path

from plumbob.console.diagnosis.machine_check import MachineCheck

MIN_MEMORY_GIB = 8.0
MIN_SHARED_MEMORY_GIB = 1.0
MIN_DISK_GIB = 5.0

CONNECTION_S = 2.0
"""How long a connection of this machine to itself may take."""

HEAD_PORT = 6379
"""At which `ray start --head` waits for hosts, unless it is given another."""


def device_check() -> MachineCheck:
    import psutil

    try:
        import torch
    except (ImportError, OSError) as error:
        return MachineCheck("device", False, f"torch cannot be imported: {error}", "install torch anew")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return MachineCheck("device", True, f"{len(names)} GPUs: {', '.join(names)}")
    if torch.version.cuda is not None and Path("/proc/driver/nvidia").exists():
        return MachineCheck(
            "device", False, "a GPU that torch cannot use", "compare its driver with torch's CUDA version"
        )
    return MachineCheck("device", True, f"{psutil.cpu_count()} CPUs, no GPU")


def memory_check() -> MachineCheck:
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    ok = memory.available >= MIN_MEMORY_GIB * 2**30
    return MachineCheck(
        "memory", ok, found, "" if ok else f"the toy preset needs up to {MIN_MEMORY_GIB:g} GiB: free some"
    )


def shared_memory_check() -> MachineCheck:
    """Ray keeps its object store in /dev/shm; in a container it is often 64 MiB."""
    path = Path("/dev/shm")
    if not path.is_dir():
        return MachineCheck("shared memory", True, "this system has no /dev/shm; Ray uses a temporary folder")
    usage = shutil.disk_usage(path)
    total, free = usage.total / 2**30, usage.free / 2**30
    ok = free >= MIN_SHARED_MEMORY_GIB
    few = total < MIN_SHARED_MEMORY_GIB
    advice = (
        f"give it {MIN_SHARED_MEMORY_GIB:g} GiB or more (a container: --shm-size=2g)"
        if few
        else "remove files of processes that have ended from it (`ls -lt /dev/shm`)"
    )
    return MachineCheck("shared memory", ok, f"/dev/shm has {free:.1f} of {total:.1f} GiB free", "" if ok else advice)


def disk_check(storage: Path) -> MachineCheck:
    free = shutil.disk_usage(storage).free / 2**30
    ok = free >= MIN_DISK_GIB
    advice = f"free {MIN_DISK_GIB:g} GiB, or set storage.path to another disk"
    return MachineCheck("disk", ok, f"{free:.1f} GiB free in {storage.resolve()}", "" if ok else advice)


def ports_check() -> MachineCheck:
    """Workers speak to one another over TCP; a private cluster and gloo choose free ports of the loopback interface."""
    from plumbob.core.host_network import LOOPBACK

    try:
        with socket.create_server((LOOPBACK, 0)) as server:
            server.settimeout(CONNECTION_S)
            with socket.create_connection(server.getsockname(), CONNECTION_S):
                server.accept()[0].close()
    except OSError as error:
        return MachineCheck(
            "ports",
            False,
            f"no connection to {LOOPBACK}: {error}",
            f"let processes reach {LOOPBACK} (firewall, sandbox)",
        )
    if _is_free(HEAD_PORT):
        return MachineCheck("ports", True, f"{LOOPBACK} is reached; {HEAD_PORT} is free")
    # A Ray cluster that is there already, and may be joined; or somebody else, who keeps a head from starting.
    advice = "a Ray head there can be joined (cluster.address=auto), or take another: `ray start --head --port=N`"
    return MachineCheck("ports", True, f"{LOOPBACK} is reached; somebody listens at {HEAD_PORT}", advice)


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("", port))
        except OSError:
            return False
    return True
