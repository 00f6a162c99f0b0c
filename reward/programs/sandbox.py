"""Starts a program in a sandbox of its own, sees that it ends, and knows whether the host allows it (`Sandbox`)."""

import json
import os
import select
import signal
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

import plumbob
from plumbob.configs.settings.programs.reward_programs import CodePart
from plumbob.core.errors import RunFailed

Role = Literal["answers", "tests", "script"]

BEGIN = "import sys; sys.path.append({ours!r}); from plumbob.reward.programs.inside.sandbox_program import main; main()"
START_TIMEOUT_S = 30.0
"""To be inside: a host that is busy takes longer than the 0.05 s of an idle one."""

EXIT_WAIT_S = 5.0

ENVIRONMENT = {
    **{"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},
    # A library that starts a thread for each CPU would need more processes than the program may have.
    **{"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
}


class SandboxRefused(RunFailed):
    """This host does not give what the sandbox needs."""


class Sandbox:
    """A process that puts itself into a sandbox, and in it does what its role says.

    Args:
        scratch: where it may write where it has no namespace of its own; removed by whoever made it.
        stdin, stdout: files, as they are of another size and speed than pipes.
        channel: a socket, which the program has.

    Raises:
        SandboxRefused: the host does not allow it; says what.
    """

    def __init__(self, part: CodePart, role: Role, scratch: Path, stdin: int, stdout: int, channel: int) -> None:
        reading, writing = os.pipe()
        ours = str(Path(plumbob.__path__[0]).parent)
        spec = {
            **{"role": role, "isolation": part.isolation, "ours": ours, "parent": os.getpid()},
            **{"status": writing, "channel": channel, "scratch": str(scratch)},
            **{"cpu_s": part.cpu_s, "memory_bytes": int(part.memory_gib * 2**30), "max_processes": part.max_processes},
            **{"file_bytes": part.max_file_mib * 2**20, "scratch_bytes": part.scratch_mib * 2**20},
            **{"readable": readable_folders(), "packages": packages()},
        }
        home = "/tmp" if part.isolation == "namespaces" else str(scratch)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", BEGIN.format(ours=ours), json.dumps(spec)],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            pass_fds=(writing, channel),
            env={**ENVIRONMENT, "HOME": home, "TMPDIR": home},
            start_new_session=True,
        )
        os.close(writing)
        try:
            self._await_begin(reading)
        finally:
            os.close(reading)

    def _await_begin(self, reading: int) -> None:
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        began = bool(poll.poll(START_TIMEOUT_S * 1000))
        found = os.read(reading, 4096) if began else b"it takes more than 30 s"
        if found != b"ready":
            self.kill()
            raise SandboxRefused(found.decode(errors="replace") or "its process ended as it began")

    def wait(self, deadline: float) -> int | None:
        """Its exit status; None where it had to be killed at the deadline, by the monotonic clock."""
        try:
            return self._process.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self) -> None:
        """End it, with all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(EXIT_WAIT_S)


def packages() -> list[str]:
    """Folders of installed packages, which a program may import."""
    return list(dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib")))


def readable_folders() -> list[str]:
    """What a program may read: Python, its packages and the system's libraries; no other's inside one of them."""
    asked = ["/usr", "/lib", "/lib64", "/bin", sys.base_prefix, str(Path(sys.base_prefix).resolve()), *packages()]
    found: list[str] = []
    for folder in dict.fromkeys(asked):
        if Path(folder).exists() and not any(folder.startswith(f"{other}/") for other in found):
            found.append(folder)
    return found
