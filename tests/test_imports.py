"""The arrows between the packages and the one home of each heavy package, held by reading the imports."""

import ast
import subprocess
import sys
from pathlib import PurePosixPath

import pytest

from tests.support.source_tree import ORDER, ROOT, arrows, imported_modules, modules, rings, source_files

HOMES = {
    "ray": ("cluster/",),
    "vllm": ("rollout/samplers/vllm/",),
    "deepspeed": ("trainers/learner/engine.py",),
    "peft": ("models/",),
    "bitsandbytes": ("models/",),
    "matplotlib": ("console/",),
    "rich": ("console/",),
}
TORCH_FREE = ("core", "configs", "data", "console")
FOLDERS = sorted({"", *(module.rsplit(".", depth)[0] for module in modules() for depth in (1, 2) if "." in module)})


def broken_rules(path: str, source: str) -> list[str]:
    """What a file at `path` (relative to the root, with forward slashes) imports against the rules."""
    file = PurePosixPath(path)
    package = file.parts[0]
    broken = []
    if file.name == "__init__.py" and not _is_docstring(source):
        broken.append(f"{path}: an __init__.py holds nothing but a docstring")
    for module in imported_modules(source):
        top, _, below = module.partition(".")
        ours = below.partition(".")[0]
        if module.startswith("."):
            broken.append(f"{path}: relative import {module}")
        elif top in ORDER:
            broken.append(f"{path}: {module} is plumbob.{module}: the plain name is a second copy of it")
        elif top == "plumbob" and package in ORDER and ours in ORDER and ORDER.index(ours) > ORDER.index(package):
            broken.append(f"{path}: {package} must not import {ours}")
        elif package == "reward" and ours == "rollout" and not f"{below}.".startswith("rollout.rollout_records."):
            broken.append(f"{path}: reward takes only rollout.rollout_records, not {below}")
        elif package in ORDER and top in HOMES and not path.startswith(HOMES[top]):
            broken.append(f"{path}: {top} is imported in {', '.join(HOMES[top])} only")
    return broken


def _is_docstring(source: str) -> bool:
    body = ast.parse(source).body
    return not body or (len(body) == 1 and ast.get_docstring(ast.parse(source)) is not None)


def files_of_tests() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("path", [*source_files(), *files_of_tests()])
def test_file_keeps_the_rules(path: str) -> None:
    assert broken_rules(path, (ROOT / path).read_text(encoding="utf-8")) == []


def test_no_files_import_one_another_in_a_ring() -> None:
    assert rings(arrows()) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_arrows_go_one_way_inside_a_folder(folder: str) -> None:
    """Among its files and sub-folders: no two of them reach one another."""
    prefix = f"{folder}." if folder else ""
    graph: dict[str, set[str]] = {}
    for module, others in arrows().items():
        if module.startswith(prefix):
            child = module.removeprefix(prefix).partition(".")[0]
            below = (other.removeprefix(prefix).partition(".")[0] for other in others if other.startswith(prefix))
            graph.setdefault(child, set()).update(other for other in below if other != child)
    assert rings(graph) == []


@pytest.mark.parametrize("package", TORCH_FREE)
def test_package_is_imported_without_torch(package: str) -> None:
    """Every module of the package, in a new process: configuration, readers and the command line start at once."""
    names = [f"plumbob.{module}" for module in modules() if module.startswith(f"{package}.")]
    heavy = ("torch", "transformers", "ray", "vllm", "deepspeed", "peft")
    code = (
        f"import importlib, sys\nfor module in {names!r}: importlib.import_module(module)\n"
        f"print([heavy for heavy in {heavy!r} if heavy in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("data/splitting.py", "from plumbob.models.policy import Policy", "data must not import models"),
        ("models/policy.py", "import plumbob.trainers.build as build", "models must not import trainers"),
        ("configs/load_run.py", "def f():\n    from plumbob.console import cli", "configs must not import console"),
        (
            "trainers/online/online_loop.py",
            "if TYPE_CHECKING:\n    from plumbob.cluster.worker_groups import Group",
            "trainers must not import cluster",
        ),
        (
            "trainers/online/online_loop.py",
            "import importlib\nimportlib.import_module('plumbob.cluster.worker_groups')",
            "must not import cluster",
        ),
        ("trainers/online/online_loop.py", "import trainers.build", "trainers.build is plumbob.trainers.build"),
        ("tests/unit/test_a.py", "from models import policy", "models.policy is plumbob.models.policy"),
        (
            "reward/scorer.py",
            "from plumbob.rollout.samplers.sampler import Sampler",
            "reward takes only rollout.rollout_records",
        ),
        (
            "reward/scorer.py",
            "import plumbob.rollout.rollout_records_of_old",
            "reward takes only rollout.rollout_records",
        ),
        ("trainers/online/online_loop.py", "def f():\n    import ray", "ray is imported in cluster/ only"),
        ("driver/api.py", "import ray", "ray is imported in cluster/ only"),
        (
            "rollout/samplers/sampler.py",
            "from vllm.lora.request import LoRARequest",
            "vllm is imported in rollout/samplers/vllm/",
        ),
        (
            "cluster/workers/worker.py",
            "from deepspeed import zero",
            "deepspeed is imported in trainers/learner/engine.py only",
        ),
        ("trainers/learner/engine.py", "import numpy, peft", "peft is imported in models/ only"),
        (
            "trainers/learner/engine.py",
            "__import__('bitsandbytes')",
            "bitsandbytes is imported in models/ only",
        ),
        ("models/policy.py", "from . import peft", "relative import"),
        ("models/__init__.py", "from plumbob.models.policy import Policy", "nothing but a docstring"),
        ("models/__init__.py", '"""Models."""\nVERSION = 1', "nothing but a docstring"),
    ],
)
def test_a_broken_rule_is_found(path: str, source: str, complaint: str) -> None:
    (found,) = broken_rules(path, source)
    assert complaint in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("reward/scorer.py", "from plumbob.rollout.rollout_records import Rollout\nimport plumbob.models.policy"),
        ("rollout/samplers/vllm/vllm_sampler.py", "def boot():\n    from vllm import LLM"),
        (
            "cluster/session.py",
            "import ray\nfrom plumbob.trainers import build\nimport plumbob.cluster.calls",
        ),
        ("models/tuning/lora.py", "import peft\nimport bitsandbytes as bnb\nimport torch"),
        ("models/__init__.py", '"""Models."""'),
        ("models/__init__.py", ""),
        ("tests/unit/test_a.py", "import ray, vllm, deepspeed, peft"),
    ],
)
def test_what_is_allowed_is_not_complained_about(path: str, source: str) -> None:
    assert broken_rules(path, source) == []


def test_a_ring_is_found() -> None:
    assert rings({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"a"}}) == [["a", "b", "c"]]
