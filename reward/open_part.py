"""From a part of a reward to its scorer: the modules below `reward/parts/`, one for each kind (`part_opening`)."""

import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

from plumbob.configs.settings.rewards import OwnReward
from plumbob.reward import parts
from plumbob.reward.scorer import Opening

SUFFIX = "_part"
"""Of the modules' names, after the kind with `_` for each hyphen."""


@cache
def part_modules() -> Mapping[str, str]:
    """Kind -> the full name of its module. None of them is imported: some are heavy."""
    found = (
        name for _, name, is_package in pkgutil.walk_packages(parts.__path__, f"{parts.__name__}.") if not is_package
    )
    return {name.rpartition(".")[2].removesuffix(SUFFIX).replace("_", "-"): name for name in found}


def part_opening(part: OwnReward, folder: Path | None) -> Opening:
    """What the module of the part's kind says that opens it, by its function `opening(part, folder)`.

    Args:
        folder: where answers that were paid for are kept, for all scorers; None keeps them with the scorer.
    """
    opening: Callable[[OwnReward, Path | None], Opening] = import_module(part_modules()[part.kind]).opening
    return opening(part, folder)
