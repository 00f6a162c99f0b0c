"""Where a walk through the code goes: the folders whose functions are called, in order, and how often it climbs back.

A climb is a call of a function in a folder that stands above the folder of the call before it: driver <- models, say,
where the models were asked something and the driver had to ask again. Each call is counted, of Plumbob's own functions
in this thread; bodies of classes, comprehensions and lambdas are none, and `core` is left out: all stand on it.
"""

import sys
from collections.abc import Callable, Sequence
from inspect import CO_NEWLOCALS
from itertools import pairwise
from types import FrameType
from typing import Any

from tests.support.source_tree import ORDER


def walked(action: Callable[[], object], num_calls: int) -> list[str]:
    """The folders of the first calls of an action, each below `plumbob`."""
    folders: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and len(folders) < num_calls and _is_counted(frame):
            folders.append(frame.f_globals["__name__"].split(".")[1])

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(before)
    return folders


def _is_counted(frame: FrameType) -> bool:
    module, code = frame.f_globals.get("__name__", ""), frame.f_code
    is_ours = module.startswith("plumbob.") and not module.startswith("plumbob.core.")
    return is_ours and not code.co_name.startswith("<") and bool(code.co_flags & CO_NEWLOCALS)


def climbs(folders: Sequence[str]) -> list[str]:
    """Each climb of a walk, as "from > to"."""
    return [f"{one} > {other}" for one, other in pairwise(folders) if ORDER.index(other) > ORDER.index(one)]
