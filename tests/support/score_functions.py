"""Reward functions as a user writes them: a file with a body, and the part of a reward that calls it."""

import textwrap
from pathlib import Path
from typing import Any

from plumbob.configs.settings.programs.reward_programs import FunctionPart


def write_function(folder: Path, body: str, file: str = "my_reward.py") -> str:
    """`FILE.py:score`, of a file with that content."""
    path = folder / file
    path.write_text(textwrap.dedent(body))
    return f"{path}:score"


def function_part(folder: Path, body: str, **settings: Any) -> FunctionPart:
    return FunctionPart(function=write_function(folder, body), **settings)
