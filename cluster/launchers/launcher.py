"""What a launcher is: a module with its own options of `plumbob submit`, and what it makes of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from plumbob.configs.runs import AnyRun


@dataclass(frozen=True)
class LauncherOption:
    """An option of `plumbob submit` that one launcher reads.

    Attributes:
        metavar: empty for a switch, which takes no value.
        kind: reads the value.
    """

    flag: str
    about: str
    metavar: str = ""
    kind: type = str

    @property
    def name(self) -> str:
        """Of the option's value among the arguments: `--no-wait` is no_wait."""
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def is_switch(self) -> bool:
        return not self.metavar


class Renderer(Protocol):
    """A launcher that writes what another system starts, as a module: `plumbob submit --render NAME`."""

    @property
    def NAME(self) -> str: ...  # noqa: N802 (a module's constant)

    @property
    def OPTIONS(self) -> tuple[LauncherOption, ...]: ...  # noqa: N802

    def render(self, config: AnyRun, options: Mapping[str, Any]) -> str:
        """The text of the file.

        Args:
            options: the values of its own `OPTIONS` by `LauncherOption.name`; None where one was not given.

        Raises:
            UserError: an option is missing, or the other system would not take the run.
        """
