"""Ray's workers import the source that the driver runs, wherever the driver stands."""

import json
import os
import site
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from plumbob.cluster.workers import import_path
from plumbob.cluster.workers.import_path import source_path
from tests.support.source_copies import copy_as_checkout, copy_as_installed
from tests.support.source_tree import ROOT

DRIVER = """
import json

import ray

from plumbob.cluster.connection import started_or_joined
from plumbob.configs.settings.workers import ClusterSettings


def imported() -> dict[str, object]:
    import sys

    import plumbob
    import plumbob.configs
    import plumbob.data
    import plumbob.models

    files = [module.__file__ for module in (plumbob, plumbob.configs, plumbob.data, plumbob.models)]
    return {"files": files, "path": sys.path}


if __name__ == "__main__":
    with started_or_joined(ClusterSettings(num_cpus=1)):
        print(json.dumps(ray.get(ray.remote(imported).remote(), timeout=120)))
"""


def workers_import(cwd: Path, *arguments: str) -> dict[str, Any]:
    """What a worker of a driver imports that is started so, on a private Ray cluster, without a search path."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def files_in(root: Path, folder: Path) -> list[str]:
    """Of `plumbob` and three of its parts: the first in `root`, the others in `folder`."""
    return [str(root / "__init__.py"), *(str(folder / name / "__init__.py") for name in ("configs", "data", "models"))]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A working folder that has a clone, which looks like a namespace package, and names of its own that are ours."""
    folder = tmp_path / "elsewhere"
    for name in ("data/__init__.py", "configs/__init__.py", "models.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("raise RuntimeError('a file of the user was imported')\n")
    for name in ("models/loading.py", "plumbob/__init__.py", "pyproject.toml"):
        (folder / "plumbob" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "plumbob" / name).touch()
    return folder


@pytest.mark.parametrize("form", ["checkout", "installed"])
def test_workers_import_nothing_from_the_folder_of_the_driver_and_its_script(
    elsewhere: Path, tmp_path: Path, form: str
) -> None:
    root = ROOT if form == "checkout" else copy_as_installed(tmp_path / "site")
    script = elsewhere / "driver.py"
    script.write_text(f"import sys\n\nsys.path.insert(0, {str(root)!r})\n{DRIVER}")
    found = workers_import(elsewhere, str(script))
    package = root / "plumbob"
    assert found["files"] == files_in(package, root if form == "checkout" else package)
    assert found["path"][0] == str(root)
    assert not {str(elsewhere), ""} & set(found["path"])


def test_workers_of_a_driver_in_a_second_checkout_import_that(tmp_path: Path) -> None:
    """Another one than is installed here."""
    root = copy_as_checkout(tmp_path / "second")
    (root / "tests" / "driver.py").write_text(DRIVER)
    found = workers_import(root, "-m", "tests.driver")
    assert found["files"] == files_in(root / "plumbob", root)


def test_what_is_installed_needs_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = tmp_path / "site-packages"
    (packages / "plumbob").mkdir(parents=True)
    monkeypatch.setattr(import_path, "package_folder", lambda: packages / "plumbob")
    assert source_path() == [str(packages)]
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(packages)])
    assert source_path() == []
