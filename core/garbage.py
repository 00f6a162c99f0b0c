"""How often Python looks for garbage in a process of Plumbob's own, such as the command line's."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

OBJECTS = 10_000
"""New objects between two looks. Python's own 700 let it look hundreds of times while torch and transformers are
imported, whose objects all stay."""


def collect_seldom() -> None:
    """From now on in this process. No library does so to the process of whoever imports it."""
    gc.set_threshold(OBJECTS)


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, Python does not look by itself: around imports. What is computed afterwards is looked at as before."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
