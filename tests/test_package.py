"""What is installed: one name, every module of the tree, in whatever folder a user stands."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from plumbob.configs.load_run import preset_names
from tests.support.packages_of_our_names import write_packages_of_our_names
from tests.support.source_tree import ORDER, ROOT, source_files

TINY = [
    *("pretrain", "name=tiny", "data.text=text.jsonl", "pretrain.num_epochs=1", "pretrain.block_tokens=32"),
    *(f"policy.model.{name}=64" for name in ("hidden_size", "intermediate_size", "max_positions")),
    *("policy.model.vocab_size=300", "policy.model.num_layers=1", "policy.model.num_heads=2"),
    *("learner.num_cpus=1", "learner.num_threads=1"),
]
FEW_TEXTS = ["data.toy.num_texts=100", "data.toy.num_pairs=40"]
PAGES = "console/web/static"
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2]))"


def run(command: Sequence[str | Path], folder: Path, timeout_s: float = 120, **environment: str) -> str:
    """What a command prints that ends well; nothing of this process's Python path reaches it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def copy_checkout(target: Path) -> Path:
    """The files that are installed and those that say how."""
    target.mkdir(parents=True)
    names = [*ORDER, "plumbob", "setup.py", "pyproject.toml", "README.md", "LICENSE"]
    for name in names:
        run(["cp", "-r", ROOT / name, target], ROOT)
    run(["find", target, "-name", "__pycache__", "-prune", "-exec", "rm", "-r", "{}", "+"], ROOT)
    return target


def build(kind: str, source: Path, target: Path) -> Path:
    """A wheel, an sdist or an editable wheel."""
    target.mkdir(parents=True, exist_ok=True)
    return target / run([sys.executable, "-c", BUILD, kind, target], source).splitlines()[-1]


def environment(folder: Path, wheel: Path) -> Path:
    """An environment with a wheel alone; of this one it sees the packages, and not the hook of an editable install."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = ["-m", "pip", "--quiet", "--disable-pip-version-check", "--python", str(python)]
    run([sys.executable, *pip, "install", "--no-deps", "--no-index", "--no-compile", wheel], folder)
    site = run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip()
    # A folder named in a .pth file is searched; the .pth files in it, such as an editable install's, are not read.
    (Path(site) / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return folder / "bin"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("copy") / "checkout")


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", checkout, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with the wheel alone."""
    return environment(tmp_path_factory.mktemp("installed"), wheel)


@pytest.fixture(scope="module")
def others_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's working folder with packages of our names, and a text."""
    folder = tmp_path_factory.mktemp("work")
    write_packages_of_our_names(folder)
    lines = (json.dumps({"text": f"The car has {number} doors and a red engine."}) for number in range(60))
    (folder / "text.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def names_in(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_has_every_module_preset_and_page_below_one_name(wheel: Path) -> None:
    names = {name for name in names_in(wheel) if ".dist-info/" not in name}
    presets = {f"plumbob/configs/presets/{name}.yaml" for name in preset_names()}
    modules = {f"plumbob/{path}" for path in source_files()}
    pages = {f"plumbob/{path.relative_to(ROOT)}" for path in (ROOT / PAGES).rglob("*") if path.is_file()}
    assert names == {"plumbob/__init__.py", "plumbob/py.typed"} | modules | presets | pages


def test_lint_looks_at_every_folder_that_is_installed() -> None:
    (line,) = (line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("PACKAGES := "))
    assert tuple(line.split()[2:]) == ORDER


def test_a_wheel_from_the_sdist_is_the_same(checkout: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", checkout, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("plumbob-*")
    assert names_in(build("wheel", unpacked, tmp_path / "wheel")) == names_in(wheel)


def test_the_wheel_alone_runs_from_where_it_is_installed(installed: Path, tmp_path: Path) -> None:
    assert run([installed / "plumbob", "--help"], tmp_path).startswith("usage: plumbob")
    code = "import plumbob.configs.load_run as loading; print(loading.__file__)"
    found = Path(run([installed / "python", "-c", code], tmp_path).strip())
    assert found.is_relative_to(installed.parent)


def test_a_plan_in_a_working_folder_with_packages_of_our_names(installed: Path, others_folder: Path) -> None:
    """Python puts that folder first on its path where a module is started."""
    command = [installed / "python", "-m", "plumbob.console.cli", "plan", "toy", *FEW_TEXTS]
    assert "learner" in run(command, others_folder)


def test_a_run_in_such_a_folder_and_in_its_workers(installed: Path, others_folder: Path) -> None:
    """A pre-training run: Ray starts a learner in a process of its own, which has that working folder too."""
    printed = run([installed / "plumbob", "run", *TINY], others_folder, timeout_s=300)
    assert "pretrain: done in" in printed
    assert (others_folder / "runs/tiny/policy/model.safetensors").is_file()


def test_a_second_checkout_runs_its_own_files(checkout: Path) -> None:
    """Though this environment has another one installed, by an import hook."""
    code = (
        "import json, sys, plumbob.cluster.resources, plumbob.data.reading.readers, plumbob.rollout.journal\n"
        "print(json.dumps([module.__file__ for name, module in sys.modules.items() if name.startswith('plumbob')]))"
    )
    found: list[str] = json.loads(run([sys.executable, "-c", code], checkout))
    assert len(found) > 20
    assert all(Path(file).is_relative_to(checkout) for file in found)


def test_an_editable_install_has_new_files_at_once(checkout: Path, tmp_path: Path) -> None:
    programs = environment(tmp_path / "environment", build("editable", checkout, tmp_path / "wheel"))
    assert run([programs / "plumbob", "--help"], tmp_path).startswith("usage: plumbob")
    new = checkout / "trainers" / "algorithms" / "new_loss.py"
    new.write_text("")
    try:
        code = "import plumbob.trainers.algorithms.new_loss as new; print(new.__file__)"
        assert run([programs / "python", "-c", code], tmp_path).strip() == str(new)
    finally:
        new.unlink()
