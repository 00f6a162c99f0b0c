"""Commands without Ray."""

import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Puts functions in the place of those that start Ray; runs stand below tmp_path."""
    monkeypatch.chdir(tmp_path)

    def install(**functions: Callable[..., object]) -> None:
        module = types.ModuleType("plumbob.driver.api")
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, "plumbob.driver.api", module)

    return install
