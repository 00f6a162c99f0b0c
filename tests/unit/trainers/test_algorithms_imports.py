"""The algorithms and their tests need torch, numpy and pydantic alone: they run where nothing else can be imported."""

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.source_tree import ROOT, modules

TESTS = "tests/unit/trainers/algorithms"
ALLOWED = ("torch", "numpy", "pydantic", "pytest", "hypothesis")
"""What the maths stands on, and what runs its tests; with their own dependencies."""

ALONE = """
import importlib, json, sys
from importlib.abc import MetaPathFinder

refused, modules, arguments = map(json.loads, sys.argv[1:])


class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"No module named {name!r}: it is not one of those that the maths may need")


sys.meta_path.insert(0, Refuse())
for module in modules:
    importlib.import_module(module)
if arguments:
    import pytest

    sys.exit(pytest.main(arguments))
"""


def alone(modules: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Import the modules, then run pytest with the arguments, in a process that refuses all but what is allowed."""
    command = [sys.executable, "-c", ALONE, json.dumps(refused()), json.dumps(modules), json.dumps(arguments)]
    # No other package's plugin of pytest: what it needs is not there.
    environment = {"PATH": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)


def refused() -> list[str]:
    """Names that only installed packages bring which none of `ALLOWED` requires."""
    wanted, seen = list[str](ALLOWED), {"plumbob"}
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name not in seen:
            seen.add(name)
            wanted += own_requirements(name)
    homes = packages_distributions()
    return sorted(name for name, found in homes.items() if not seen & set(map(canonicalize_name, found)))


def own_requirements(distribution: str) -> list[str]:
    try:
        parsed = map(Requirement, requires(distribution) or [])
    except PackageNotFoundError:  # Of another platform.
        return []
    return [one.name for one in parsed if one.marker is None or one.marker.evaluate({"extra": ""})]


def test_every_algorithm_is_imported_and_its_tests_run_alone() -> None:
    names = [f"plumbob.{module}" for module in modules() if module.startswith("trainers.algorithms.")]
    done = alone(names, "-p", "no:cacheprovider", TESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(names) > 5 and int(done.stdout.split(" passed")[0].split()[-1]) > 100


def test_a_module_that_needs_more_is_refused() -> None:
    done = alone(["plumbob.trainers.offline.dpo"])
    assert done.returncode == 1 and "it is not one of those that the maths may need" in done.stderr
