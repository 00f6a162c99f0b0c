"""The command line: parses, runs one command of the tuple, turns errors into one message and an exit status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from plumbob.console.commands import (
    doctor,
    evaluate,
    plan,
    presets,
    report,
    resume,
    run,
    submit,
    verify,
)
from plumbob.console.commands.live import scale, status, stop
from plumbob.console.exit_codes import FAILED, INTERRUPTED, RESUME_ME, USER_ERROR
from plumbob.core.errors import RunFailed, RunPreempted, RunStopped, UserError

QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class Command(Protocol):
    """A module of `console/commands/`; at its top it imports nothing heavy, since every command's is imported."""

    @property
    def NAME(self) -> str: ...  # noqa: N802 (a module's constant)

    @property
    def ABOUT(self) -> str: ...  # noqa: N802

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Called when the command is the one that was typed."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and give the exit status; UserError, RunFailed and RunStopped become messages."""


COMMANDS: tuple[Command, ...] = (
    run,
    resume,
    evaluate,
    plan,
    submit,
    status,
    scale,
    stop,
    report,
    doctor,
    verify,
    presets,
)
"""In the order of `plumbob --help`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status: one of `console.exit_codes`."""
    arguments = _parse(argv)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    command: Command = arguments.command
    try:
        return command.run(arguments)
    except UserError as error:
        print("\n".join(f"plumbob: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return USER_ERROR
    except RunStopped as error:
        print(f"plumbob: {error}", file=sys.stderr)
        return RESUME_ME if isinstance(error, RunPreempted) else INTERRUPTED
    except RunFailed as error:
        print(f"plumbob: the run failed: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("plumbob: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse; settings may stand after an option too, where argparse has closed its list of them."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and ("overrides" not in arguments or any(item.startswith("-") for item in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="plumbob",
        description="Aligns language models: pre-training, fine-tuning, reward models, PPO, GRPO, DPO, KTO and more.",
        epilog="CONFIG is a preset's name, such as toy, or a YAML file. `plumbob run toy` needs nothing else.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_CommandParser)
    for command in COMMANDS:
        commands.add_parser(command.NAME, help=command.ABOUT, description=command.ABOUT, command=command)
    return parser


class _CommandParser(argparse.ArgumentParser):
    """Asks for its command's options when the command was typed: those of `submit` come from every launcher."""

    def __init__(self, *, command: Command, **settings: Any) -> None:
        super().__init__(**settings)
        self._command: Command | None = command
        self.set_defaults(command=command)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._command is not None:
            self._command.add_options(self)
            self._command = None
        return super().parse_known_args(args, namespace)


if __name__ == "__main__":
    sys.exit(main())
