"""The source has one digest, whether it stands in a checkout or is installed, and nothing of others is in it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import plumbob
from plumbob.cluster.workers import same_versions
from plumbob.cluster.workers.code_digest import source_files
from plumbob.cluster.workers.same_versions import SOURCE, installed
from tests.support.source_copies import copy_as_checkout, copy_as_installed
from tests.support.source_tree import ORDER

ASK = """
import json
from plumbob.cluster.workers.code_digest import package_folder, source_digest, source_files
home = str(package_folder())
print(json.dumps({"names": [name for _, name in source_files()], "digest": source_digest(), "home": home}))
"""


def asked(path: Path) -> dict[str, Any]:
    """What a process finds that has the source at that place of its search path."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", ASK],
        cwd="/",
        env={"PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return copy_as_checkout(tmp_path / "checkout")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return copy_as_installed(tmp_path / "site")


def test_a_checkout_and_what_is_installed_from_it_have_the_same_source(checkout: Path, site: Path) -> None:
    beside, within = asked(checkout), asked(site)
    assert (beside["home"], within["home"]) == (str(checkout / "plumbob"), str(site / "plumbob"))
    assert beside["names"] == within["names"] == [name for _, name in source_files()]
    assert beside["digest"] == within["digest"] == installed()[SOURCE]


def test_the_source_is_every_folder_of_the_project_and_no_other() -> None:
    names = [name for _, name in source_files()]
    assert {name.partition("/")[0] for name in names} == {"__init__.py", "py.typed", *ORDER}
    assert {"configs/presets/toy.yaml", "cluster/fleet/pool.py", "core/__init__.py"} <= set(names)
    assert {Path(name).suffix for name in names} == {".py", ".yaml", ".typed"}


@pytest.mark.parametrize("folder", [*ORDER, "plumbob"])
def test_any_file_that_workers_run_counts_and_no_other(checkout: Path, folder: str) -> None:
    before = asked(checkout)["digest"]
    with (checkout / folder / "__init__.py").open("a") as file:
        file.write("\n")
    assert (asked(checkout)["digest"] == before) == (folder == "console")


def test_the_source_is_read_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = installed()
    monkeypatch.setattr(same_versions, "source_digest", lambda: pytest.fail("it was read again"))
    assert installed() == first
    first["torch"] = "0"  # A copy: nobody changes what others are told.
    assert installed() != first


def test_this_process_runs_its_own_checkout() -> None:
    assert Path(plumbob.__file__).parents[1] == Path(__file__).parents[4]
