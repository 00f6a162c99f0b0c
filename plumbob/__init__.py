"""Plumbob."""

from pathlib import Path

_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file():  # In a checkout the folders beside this one are its sub-packages.
    __path__.append(str(_checkout))
