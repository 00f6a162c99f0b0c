"""The arrows between the packages and the one home of each heavy package, held by reading the imports."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ("configs", "data", "models", "rollout", "reward", "trainers", "cluster", "console")
HOMES = {
    "ray": ("cluster/",),
    "vllm": ("rollout/vllm_sampler.py",),
    "deepspeed": ("trainers/engine.py",),
    "peft": ("models/",),
    "bitsandbytes": ("models/",),
    "matplotlib": ("console/",),
    "rich": ("console/",),
}
TORCH_FREE = ("configs", "data", "console")
LOADED_WHEN_ASKED = "console/verify/"


def imported_modules(source: str) -> Iterator[str]:
    """Every module that the source imports, wherever in it: `from a import b` yields a.b, since b may be a module."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                yield from (f"{'.' * level}{module or ''}.{name.name}" for name in names)
            case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__")):
                yield from (str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def broken_rules(path: str, source: str) -> list[str]:
    """What a file at `path` (relative to the root, with forward slashes) imports against the rules."""
    file = PurePosixPath(path)
    package = file.parts[0]
    broken = []
    if file.name == "__init__.py" and not _is_docstring(source):
        broken.append(f"{path}: an __init__.py holds nothing but a docstring")
    for module in imported_modules(source):
        top = module.partition(".")[0]
        if module.startswith("."):
            broken.append(f"{path}: relative import {module}")
        elif top in ORDER and ORDER.index(top) > ORDER.index(package):
            broken.append(f"{path}: {package} must not import {top}")
        elif package == "reward" and top == "rollout" and not f"{module}.".startswith("rollout.records."):
            broken.append(f"{path}: reward takes only rollout.records, not {module}")
        elif top in HOMES and not path.startswith(HOMES[top]):
            broken.append(f"{path}: {top} is imported in {', '.join(HOMES[top])} only")
    return broken


def _is_docstring(source: str) -> bool:
    body = ast.parse(source).body
    return not body or (len(body) == 1 and ast.get_docstring(ast.parse(source)) is not None)


def project_files() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for package in ORDER for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", project_files())
def test_file_keeps_the_rules(path: str) -> None:
    assert broken_rules(path, (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("package", ORDER)
def test_package_has_an_init(package: str) -> None:
    assert (ROOT / package / "__init__.py").is_file()


@pytest.mark.parametrize("package", TORCH_FREE)
def test_package_is_imported_without_torch(package: str) -> None:
    """Every module of the package, in a new process: configuration, readers and the command line start at once."""
    modules = [
        path.removesuffix(".py").replace("/", ".")
        for path in project_files()
        if path.startswith(f"{package}/") and not path.startswith(LOADED_WHEN_ASKED)
    ]
    heavy = ("torch", "transformers", "ray", "vllm", "deepspeed", "peft")
    code = (
        f"import importlib, sys\nfor module in {modules!r}: importlib.import_module(module)\n"
        f"print([heavy for heavy in {heavy!r} if heavy in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("data/readers.py", "from plumbob.models.policy import Policy", "data must not import models"),
        (
            "models/policy.py",
            "import plumbob.trainers.metrics.metrics_log as metrics",
            "models must not import trainers",
        ),
        ("configs/load.py", "def f():\n    from console import cli", "configs must not import console"),
        (
            "trainers/ppo.py",
            "if TYPE_CHECKING:\n    from plumbob.cluster.worker_groups import Group",
            "trainers must not import cluster",
        ),
        (
            "trainers/ppo.py",
            "import importlib\nimportlib.import_module('plumbob.cluster.worker_groups')",
            "must not import cluster",
        ),
        (
            "reward/scorer.py",
            "from plumbob.rollout.samplers.sampler import Sampler",
            "reward takes only plumbob.rollout.rollout_records",
        ),
        ("reward/scorer.py", "import rollout.records_of_old", "reward takes only plumbob.rollout.rollout_records"),
        ("trainers/ppo.py", "def f():\n    import ray", "ray is imported in cluster/ only"),
        (
            "rollout/sampler.py",
            "from vllm.lora.request import LoRARequest",
            "vllm is imported in rollout/vllm_sampler.py",
        ),
        ("cluster/workers.py", "from deepspeed import zero", "deepspeed is imported in trainers/engine.py only"),
        ("trainers/engine.py", "import numpy, peft", "peft is imported in models/ only"),
        ("trainers/engine.py", "__import__('bitsandbytes')", "bitsandbytes is imported in models/ only"),
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
        (
            "reward/scorer.py",
            "from plumbob.rollout.rollout_records import Rollout\nfrom plumbob.models.policy import load",
        ),
        ("rollout/vllm_sampler.py", "def boot():\n    from vllm import LLM"),
        (
            "cluster/launch.py",
            "import ray\nfrom plumbob.trainers.online.ppo import run_ppo\nimport plumbob.cluster.worker_groups",
        ),
        ("models/peft.py", "import peft\nimport bitsandbytes as bnb\nimport torch"),
        ("models/__init__.py", '"""Models."""'),
        ("models/__init__.py", ""),
    ],
)
def test_what_is_allowed_is_not_complained_about(path: str, source: str) -> None:
    assert broken_rules(path, source) == []
