"""Mistakes as tests plant them in a trainer, and how far its gradient may then be from the enumerated one."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

HONEST = 1e-3
PLANTED = 0.02
"""Relative errors: an honest trainer's at most, one that makes a mistake at least."""


@dataclass(frozen=True)
class Mistake:
    """A trainer that is wrong: other settings than were asked for, or one of its functions replaced, or neither.

    Attributes:
        replaced: a function's full name, and what takes its place.
    """

    settings: Callable[[Any], Any] = lambda asked: asked
    replaced: tuple[str, Any] | None = None

    def planted(self) -> AbstractContextManager[object]:
        return mock.patch(*self.replaced) if self.replaced else nullcontext()
