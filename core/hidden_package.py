"""What another package imports where it finds it, and nobody needs, hidden while that is imported (`hidden`)."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hidden(package: str) -> Iterator[None]:
    """Inside, to import the package raises ImportError, unless it has been imported before."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # Python's own sign for that.
    try:
        yield
    finally:
        del sys.modules[package]
