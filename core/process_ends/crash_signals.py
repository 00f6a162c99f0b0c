"""The signal by which a process crashed, as its log has it, and what that means in words (`crash_in`)."""

import re
from dataclasses import dataclass

_CRASH = re.compile(r"^.*?\*\*\* (SIG[A-Z]+) received at time=.*$", re.MULTILINE)
"""What Ray's processes write before the stack of their C++ code, when a fault of their own ends them."""

_MEANINGS = {
    "SIGILL": "an illegal instruction: compiled code used one that this CPU lacks or that its operating system refuses",
    "SIGSEGV": "a segmentation fault: compiled code used memory that is not its own",
    "SIGBUS": "a bus error: memory could not be had when it was used, as where /dev/shm is full",
    "SIGFPE": "an arithmetic fault in compiled code",
    "SIGABRT": "compiled code gave up",
}


@dataclass(frozen=True)
class Crash:
    """How a process ended itself.

    Attributes:
        signal: such as "SIGILL".
        before: what its log says before that.
    """

    signal: str
    before: str

    def __str__(self) -> str:
        meaning = _MEANINGS.get(self.signal)
        return f"{self.signal}, {meaning}" if meaning else self.signal


def crash_in(log: str) -> Crash | None:
    """The first crash that is told of in a log; None where there is none, as after SIGKILL."""
    found = _CRASH.search(log)
    return None if found is None else Crash(found[1], log[: found.start()])
