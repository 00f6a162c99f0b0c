"""Bugs as tests plant them in a trainer, and how far its gradient may then be from the enumerated one."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

HONEST = 1e-3
PLANTED = 0.02
"""Relative errors: an honest trainer's at most, one with a planted bug at least."""


@dataclass(frozen=True)
class Bug:
    """A trainer that is wrong: other settings than were asked for, or one of its functions replaced, or neither.

    Attributes:
        replaced: a function's full name, and what takes its place.
    """

    settings: Callable[[Any], Any] = lambda asked: asked
    replaced: tuple[str, Any] | None = None

    def planted(self) -> AbstractContextManager[object]:
        return mock.patch(*self.replaced) if self.replaced else nullcontext()


class Errors(NamedTuple):
    """Relative errors of one step's gradient: the honest trainer's, and by name those of trainers with a bug."""

    honest: float
    planted: dict[str, float]

    def check(self) -> None:
        assert self.honest < HONEST
        assert all(error > PLANTED for error in self.planted.values()), self.planted


def errors_with(
    error: Callable[[Bug, Path], float], bugs: Mapping[str, Bug], names: Iterable[str], folder: Path
) -> Errors:
    """`error` of the honest trainer and of each named bug, each in a folder of its own within `folder`."""
    return Errors(error(Bug(), folder / "honest"), {name: error(bugs[name], folder / name) for name in names})
