"""A package that is hidden is not there, and is there again afterwards."""

import importlib
import json
import sys

import pytest

from plumbob.core.hidden_package import hidden


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
