"""What was looked at and found (MachineCheck), and the line that a person reads of it."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class MachineCheck:
    """One thing looked at.

    Attributes:
        ok: whether everything that needs it can run.
        advice: what to do, or what could be done; never empty where it is not ok.
        seconds: what its test took, where that says something; None of others.
    """

    name: str
    ok: bool
    found: str
    advice: str = ""
    seconds: float | None = None


def line(check: MachineCheck) -> str:
    return f"{'ok     ' if check.ok else 'problem'}  {check.name}: {check.found}" + (
        f"; {check.advice}" if check.advice else ""
    )


def busy() -> str:
    """Printed beside a time that was measured while others wanted more than this machine's CPUs; else nothing."""
    load, num_cpus = os.getloadavg()[0], os.cpu_count() or 1
    if load <= num_cpus + 1:
        return ""
    return f", while {load:.0f} processes wanted {num_cpus} CPUs: run it again once the machine is idle"
