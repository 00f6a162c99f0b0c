"""`plumbob doctor`: whether this machine and its packages can run the program, and what to do where they cannot."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from plumbob.console.diagnosis.arithmetic import flags_check, matrix_products_check
from plumbob.console.diagnosis.engines import engine_checks
from plumbob.console.diagnosis.installed_packages import package_checks, python_check, vllm_check
from plumbob.console.diagnosis.machine import (
    device_check,
    disk_check,
    memory_check,
    ports_check,
    shared_memory_check,
)
from plumbob.console.diagnosis.machine_check import MachineCheck, line
from plumbob.console.exit_codes import FAILED, OK
from plumbob.console.options import add_json

NAME = "doctor"
ABOUT = "check the machine, the installed packages and each engine"
EXAMPLE = "plumbob doctor"


def add_options(parser: ArgumentParser) -> None:
    add_json(parser)
    parser.add_argument("--deep", action="store_true", help="start a vLLM engine too, which takes about a minute")


def run(arguments: Namespace) -> int:
    from plumbob.console.display import print_json

    checks = []
    for check in examine(deep=arguments.deep):
        checks.append(check)
        if not arguments.json:
            print(line(check), flush=True)
    ok = all(check.ok for check in checks)
    if arguments.json:
        print_json({"ok": ok, "checks": [asdict(check) for check in checks]}, sys.stdout)
    return OK if ok else FAILED


def examine(storage: Path = Path(), deep: bool = False) -> Iterator[MachineCheck]:
    """Every check, as it is done; imports torch and starts processes, so it takes the better part of a minute."""
    yield python_check()
    yield from package_checks()
    yield vllm_check()
    yield from (
        device_check(),
        flags_check(),
        memory_check(),
        shared_memory_check(),
        disk_check(storage),
        ports_check(),
    )
    yield matrix_products_check()
    yield from engine_checks(deep)
