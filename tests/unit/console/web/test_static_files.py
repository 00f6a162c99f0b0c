"""The pages of `plumbob ui` as files: small, escaped, from nowhere but the package; others' as published."""

import hashlib
import re
from pathlib import Path

import pytest

from tests.support.source_tree import ROOT

STATIC = ROOT / "console" / "web" / "static"
VENDOR = STATIC / "vendor"
MAX_LINES = 200
OURS = sorted(path for path in STATIC.rglob("*") if path.is_file() and VENDOR not in path.parents)
MODULES = [path for path in OURS if path.suffix == ".js"]

IMPORT = re.compile(r'^(?:import|export|\}) .*?from "([^"]+)"|^import "([^"]+)"|\bimport\("([^"]+)"\)', re.M)
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|dangerouslySetInnerHTML|\beval\(|new Function"
)


def imported(path: Path) -> list[str]:
    return ["".join(found) for found in IMPORT.findall(path.read_text(encoding="utf-8"))]


def named(path: Path) -> str:
    return path.relative_to(STATIC).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_is_small_begins_with_what_it_is_and_makes_no_markup_of_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(("// ", "/**\n * "))
    assert text.count("\n") < MAX_LINES
    assert MARKUP.findall(text) == []


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_imports_files_that_are_there(path: Path) -> None:
    assert [name for name in imported(path) if not name.startswith(".")] == []
    assert [name for name in imported(path) if not (path.parent / name).is_file()] == []


def test_no_modules_import_one_another_in_a_ring() -> None:
    """Modules that are fetched later, by import("..."), are followed too."""
    imports = {path: {(path.parent / name).resolve() for name in imported(path)} & set(MODULES) for path in MODULES}
    assert sum(map(len, imports.values())) > len(MODULES)
    below = dict(imports)
    while leaves := {path for path, others in below.items() if not others & set(below)}:
        below = {path: others for path, others in below.items() if path not in leaves}
    assert sorted(map(named, below)) == []


def test_the_page_names_files_that_are_there() -> None:
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    named_files = re.findall(r'(?:href|src)="static/([^"]+)"', page)
    assert len(named_files) > 3
    assert [name for name in named_files if not (STATIC / name).is_file()] == []


def test_nothing_is_loaded_from_elsewhere() -> None:
    """Addresses stand in none of our files but as names of XML."""
    for path in OURS:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert re.findall(r"(?:https?:)?//\w+\.\w+", re.sub(r"^\s*(?://|\*).*$", "", text, flags=re.M)) == [], path


def test_what_others_wrote_is_as_they_published_it() -> None:
    """Each file below vendor/ stands in the list with its digest, and the other way round."""
    listed = dict(re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", (VENDOR / "VERSIONS.md").read_text(), re.M))
    found = {
        path.relative_to(VENDOR).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name != "VERSIONS.md"
    }
    assert listed == found


def test_a_runs_address_is_made_where_its_id_is_escaped() -> None:
    made = [named(path) for path in MODULES if re.search(r"api/runs/\$\{", path.read_text(encoding="utf-8"))]
    assert made == ["lib/client.js", "lib/export_client.js"]
