"""Copies of Plumbob's source, as a checkout has it and as it is installed."""

import shutil
from pathlib import Path

from plumbob.cluster.workers.code_digest import source_files


def write_empty(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def copy_as_checkout(root: Path) -> Path:
    """With what else lies in a checkout."""
    for path, name in source_files():
        target = root / (name if "/" in name else f"plumbob/{name}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    write_empty(
        root, "pyproject.toml", "setup.py", "tests/__init__.py", "tests/test_a.py", "runs/run.py", ".venv/lib/x.py"
    )
    write_empty(root, "data/__pycache__/a.pyc", "data/pairs.jsonl.gz", "docs/a.yaml")
    return root


def copy_as_installed(root: Path) -> Path:
    """Beside packages of others."""
    for path, name in source_files():
        target = root / "plumbob" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    write_empty(root, "data/__init__.py", "models.py", "configs/__init__.py", "tests/__init__.py", "other/__init__.py")
    return root
