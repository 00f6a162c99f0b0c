"""What a run is computed with is kept on file."""

import subprocess
import sys
from pathlib import Path

import pytest

from plumbob.configs import environment
from plumbob.configs.environment import versions


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(["git", *identity, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_that_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (environment.CHECKOUT / "pyproject.toml").is_file() and (environment.CHECKOUT / "configs").is_dir()
    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    assert environment.environment()["git_commit"] is None
    (tmp_path / "file").write_text("one")
    git("init", "-q", str(tmp_path))
    git("-C", str(tmp_path), "add", "file")
    git("-C", str(tmp_path), "commit", "-q", "-m", "one")
    commit = git("-C", str(tmp_path), "rev-parse", "HEAD")
    assert environment.environment()["git_commit"] == commit
    (tmp_path / "file").write_text("two")
    assert environment.environment()["git_commit"] == f"{commit}-dirty"


def test_packages_that_are_not_installed_have_no_version() -> None:
    assert versions(["pydantic", "no-such-package"]).keys() == {"pydantic"}


def test_the_command_line_is_kept_as_a_shell_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/plumbob", "run", "toy", "name=my run"])
    assert environment.environment()["command"] == "plumbob run toy 'name=my run'"
    monkeypatch.setattr(sys, "argv", ["/somewhere/of_mine.py", "secret"])
    assert environment.environment()["command"] is None
