"""The Dockerfiles: what builds an image is what CI runs, and who runs in it is not root."""

import re
import subprocess

import pytest

from tests.support.source_tree import ROOT

FILES = sorted(path.name for path in (ROOT / "docker").glob("*.Dockerfile"))
PREFIX = "apt-get update && apt-get install --yes --no-install-recommends "
SUFFIX = " && rm -rf /var/lib/apt/lists/*"


def instructions(name: str) -> list[tuple[str, str]]:
    """(RUN, its command) and so on, in their order; each stands in one line."""
    lines = (ROOT / "docker" / name).read_text(encoding="utf-8").splitlines()
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("name", FILES)
def test_an_image_is_built_of_debians_packages_and_make(name: str) -> None:
    apt, target = (command for kind, command in instructions(name) if kind == "RUN")
    packages = set(apt.removeprefix(PREFIX).removesuffix(SUFFIX).split())
    assert apt == f"{PREFIX}{' '.join(sorted(packages))}{SUFFIX}"
    # KubeRay's probes call wget; the entry point is tini.
    assert packages >= {"make", "tini", "wget"} and all(re.fullmatch(r"[a-z0-9+.-]+", each) for each in packages)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    if name == "cpu.Dockerfile":  # CI begins with `make demo`, in a clean clone.
        assert target == "make install" and re.search(r"^demo: install$", makefile, re.MULTILINE)
        assert "\nmake demo" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    printed = subprocess.run(
        ["make", "--dry-run", *target.split()[1:]], cwd=ROOT, text=True, capture_output=True, check=True, timeout=60
    )
    # The builder has no GPU from which a torch could be chosen.
    assert "--torch-backend auto" not in printed.stdout


@pytest.mark.parametrize("name", FILES)
def test_what_runs_in_an_image_is_not_root(name: str) -> None:
    found = instructions(name)
    assert found[-4:] == [
        ("USER", "1000:1000"),
        ("WORKDIR", "/tmp"),
        ("ENTRYPOINT", '["tini", "--"]'),
        ("CMD", '["plumbob", "--help"]'),
    ]
    # It has no home of its own, and no tests, history or environment of the builder's.
    assert any(kind == "ENV" and "HOME=/tmp" in value for kind, value in found)
    ignored = (ROOT / "docker" / f"{name}.dockerignore").read_text(encoding="utf-8").split()
    assert {".*", "tests", "runs"} <= set(ignored)


def test_an_image_has_all_that_is_installed() -> None:
    """What is left out of it is in no package, and `make install` reads none of it."""
    ignored = set((ROOT / "docker/cpu.Dockerfile.dockerignore").read_text(encoding="utf-8").split())
    folders = re.search(r"^PACKAGES := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert folders is not None
    assert not ignored & {*folders[1].split(), "plumbob", "requirements", "Makefile", "pyproject.toml", "setup.py"}
