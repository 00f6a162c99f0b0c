"""One host's share of this machine: namespaces of its own, kept by one process whose end ends all that runs in them."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Self

import psutil

PRIVATE = ("/tmp", "/dev/shm")
"""Folders that are empty and writable on each host. All others are the machine's, read-only."""

WORK = "/tmp/work"
"""Where a host's commands run, so that the default `runs/` is the host's own."""

HOME = "/tmp/home"

STOP_S = 20.0
"""How long the kernel may take to end what it was told to."""

DIES_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")

# $1: name; $2: folder that all hosts share; others: folders that must stay readable. Those under a private folder are
# kept aside while it is mounted over. A host's own name leads to a loopback address, as on Debian.
SETUP = f"""
set -e
name=$1
while read -r _ target type _; do
    case $type in
        proc|sysfs|devtmpfs|devpts|mqueue|cgroup*) ;;
        *) mount -n -o remount,bind,ro "$target" ;;
    esac
done < /proc/mounts
shift
mount -n -t tmpfs tmpfs /mnt
number=0
for folder; do
    number=$((number + 1))
    mkdir /mnt/$number
    mount -n --bind "$folder" /mnt/$number
done
mount -n -o remount,bind,rw /mnt/1
for private in {" ".join(PRIVATE)}; do mount -n -t tmpfs tmpfs $private; done
number=0
for folder; do
    number=$((number + 1))
    mkdir -p "$folder"
    mount -n --move /mnt/$number "$folder"
done
umount -n /mnt
mkdir {WORK} {HOME}
printf '127.0.0.1 localhost\\n127.0.1.1 %s\\n' "$name" > /tmp/hosts
mount -n --bind /tmp/hosts /etc/hosts
hostname "$name"
ip link set lo up
echo ready
exec env --ignore-signal=CHLD sleep infinity
"""


class NamespacedCommand(subprocess.Popen[str]):
    """A command in namespaces; signals go to the command itself, not to what entered the namespaces for it."""

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            for process in psutil.Process(self.pid).children() or [psutil.Process(self.pid)]:
                process.send_signal(sig)


class Namespaces:
    """Network, mount, process, IPC and host-name namespaces, as a context.

    All mounts and links are in the namespaces, so that the kernel takes them away with the last process. They end when
    the context ends, and when this process dies, however it does. Commands that are still running end with them.

    Args:
        shared: a folder that is the machine's own, writable, at the same path.
        readable: folders that are needed and may lie where a private one hides them, such as the source tree.

    Raises:
        RuntimeError: they cannot be made; says why.
    """

    def __init__(self, name: str, shared: Path, readable: Sequence[Path]) -> None:
        self.name = name
        kept = [str(path) for path in readable if any(path.is_relative_to(folder) for folder in PRIVATE)]
        flags = ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
        self._command = [*DIES_WITH_PARENT, "unshare", *flags, "sh", "-c", SETUP, "setup", name, str(shared), *kept]
        self._commands: list[NamespacedCommand] = []

    def __enter__(self) -> Self:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self._holder = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, text=True, start_new_session=True, **pipes
        )
        if self._holder.stdout.readline() != "ready\n":
            said = self._holder.communicate(timeout=STOP_S)[1]
            raise RuntimeError(f"no namespaces for {self.name}: {said.strip()}")
        (first,) = psutil.Process(self._holder.pid).children()
        self.first_pid = first.pid
        """The process 1 of the host, as the machine numbers it."""
        return self

    def __exit__(self, *_: object) -> None:
        # Its parent, the holder, ends after it, and it after all others of its process namespace.
        os.kill(self.first_pid, signal.SIGKILL)
        self._holder.communicate(timeout=STOP_S)
        for command in self._commands:
            command.wait(STOP_S)

    def popen(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | IO[str] | None = None,
        stderr: int | IO[str] | None = None,
    ) -> NamespacedCommand:
        """Start a command in the host's working folder. It dies when this process does."""
        entered = ["nsenter", "-t", str(self.first_pid), "-m", "-u", "-i", "-n", "-p", *DIES_WITH_PARENT]
        started = NamespacedCommand(
            [*entered, "env", f"--chdir={WORK}", *command],
            env=env,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
        self._commands.append(started)
        return started

    def enter_network(self, *command: str) -> None:
        """Run a command of the machine's on the network of these namespaces.

        Raises:
            RuntimeError: it failed; says what it said.
        """
        done = subprocess.run(["nsenter", "-t", str(self.first_pid), "-n", *command], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")

    def processes(self) -> Iterator[psutil.Process]:
        """All that runs in the namespaces, but for the process that holds them and those that have ended."""
        namespace = Path(f"/proc/{self.first_pid}/ns/pid").readlink()
        for process in psutil.process_iter():
            try:
                inside = Path(f"/proc/{process.pid}/ns/pid").readlink() == namespace
            except OSError:
                continue
            if inside and process.pid != self.first_pid:
                yield process
