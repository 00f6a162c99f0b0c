"""What is typed behind `plumbob`: a command, or the name of a group of them (`Command`, `CommandGroup`)."""

import argparse
from dataclasses import dataclass
from typing import Protocol


class Command(Protocol):
    """A module of `console/commands/`; at its top it imports nothing heavy, since every command's is imported."""

    @property
    def NAME(self) -> str: ...  # noqa: N802 (a module's constant)

    @property
    def ABOUT(self) -> str: ...  # noqa: N802

    @property
    def EXAMPLE(self) -> str:  # noqa: N802
        """A whole command line, which stands at the end of the command's help."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Called when the command is the one that was typed."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and give the exit status; UserError, RunFailed and RunStopped become messages."""


@dataclass(frozen=True)
class CommandGroup:
    """Commands that share a word before their own names, such as `plumbob adapters list`."""

    NAME: str
    ABOUT: str
    commands: tuple[Command, ...]

    @property
    def EXAMPLE(self) -> str:  # noqa: N802
        return self.commands[0].EXAMPLE
