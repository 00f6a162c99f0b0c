"""Plumbob."""

import gc
from pathlib import Path

# By itself Python looks for garbage after every 700 new objects: an eighth of the time in which torch and transformers
# are imported, whose half a million objects stay.
gc.set_threshold(10_000)

_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file():  # In a checkout the folders beside this one are its sub-packages.
    __path__.append(str(_checkout))
