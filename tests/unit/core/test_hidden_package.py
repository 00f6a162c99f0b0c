"""A package that is hidden is not there, and is there again afterwards; so is torch's compiler."""

import importlib
import json
import os
import subprocess
import sys

import pytest

from plumbob.core.hidden_package import IS_OFF, hidden, uncompiled


def test_a_hidden_package_cannot_be_imported_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with pytest.raises(ZeroDivisionError), hidden("this"):
        with pytest.raises(ImportError):
            importlib.import_module("this")
        raise ZeroDivisionError
    assert "this" not in sys.modules
    assert importlib.import_module("this").__name__ == "this"


def test_one_that_was_imported_before_stays() -> None:
    with hidden("json"):
        assert importlib.import_module("json") is json
    assert sys.modules["json"] is json


@pytest.mark.parametrize("before", [None, "0"])
def test_the_compiler_is_off_inside_and_afterwards_as_before(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(IS_OFF, raising=False) if before is None else monkeypatch.setenv(IS_OFF, before)
    with pytest.raises(ZeroDivisionError), uncompiled():
        assert os.environ[IS_OFF] == "1"
        raise ZeroDivisionError
    assert os.environ.get(IS_OFF) == before


def test_what_is_decorated_inside_does_not_load_the_compiler() -> None:
    code = """
import sys, torch
from plumbob.core.hidden_package import uncompiled
def twice(x): return 2 * x
with uncompiled():
    assert torch.compile(twice) is twice
print("torch._inductor.compile_fx" in sys.modules)
torch.compile(twice)
print("torch._inductor.compile_fx" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.split() == ["False", "True"]
