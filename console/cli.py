"""The command line: parses, runs one command of the tuple, turns errors into one message and an exit status."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from plumbob.console.command import Command, CommandGroup
from plumbob.console.commands import (
    config,
    doctor,
    pairs,
    plan,
    presets,
    report,
    resume,
    run,
    serve_reward,
    submit,
    ui,
)
from plumbob.console.commands.adapters import adapters_group
from plumbob.console.commands.bias import bias_group
from plumbob.console.commands.data import data_group
from plumbob.console.commands.live import save, scale, status, stop, watch
from plumbob.console.commands.measures import compare_methods, evaluate, verify
from plumbob.console.commands.result import chat, export_result, merge, push, serve
from plumbob.console.commands.runs import compare, runs_group
from plumbob.console.commands.start import completion, init
from plumbob.console.exit_codes import FAILED, INTERRUPTED, RESUME_ME, USER_ERROR
from plumbob.core.errors import RunFailed, RunPreempted, RunStopped, UserError
from plumbob.core.garbage import collect_seldom

QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",  # Bars that libraries draw beside our own display, such as of a GGUF file that is converted.
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


COMMANDS: tuple[Command | CommandGroup, ...] = (
    init,
    run,
    resume,
    evaluate,
    compare_methods,
    plan,
    submit,
    watch,
    status,
    scale,
    save,
    stop,
    ui,
    runs_group.GROUP,
    compare,
    report,
    chat,
    serve,
    export_result,
    merge,
    push,
    pairs,
    data_group.GROUP,
    bias_group.GROUP,
    adapters_group.GROUP,
    doctor,
    verify,
    serve_reward,
    presets,
    config,
    completion,
)
"""In the order of `plumbob --help`."""

COMPLETION_REQUEST = "_ARGCOMPLETE"
"""A variable that the script of `plumbob completion` sets."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status: one of `console.exit_codes`."""
    collect_seldom()
    if COMPLETION_REQUEST in os.environ:  # A shell asks what could stand where Tab was pressed.
        from plumbob.console.completion.answer_shell import answer_shell

        answer_shell(parser_of_words)
    arguments = _parse(sys.argv[1:] if argv is None else argv)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    command: Command = arguments.command
    as_json = "json" in arguments and arguments.json
    try:
        return command.run(arguments)
    except UserError as error:
        return _ended(str(error), USER_ERROR, as_json)
    except RunStopped as error:
        return _ended(str(error), RESUME_ME if isinstance(error, RunPreempted) else INTERRUPTED, as_json)
    except RunFailed as error:
        return _ended(f"the run failed: {error}", FAILED, as_json)
    except KeyboardInterrupt:
        return _ended("interrupted", INTERRUPTED, as_json)


def _ended(message: str, exit_code: int, as_json: bool) -> int:
    """Say on stderr why the command did not end well, and to a script as one object on stdout; gives the status."""
    print("\n".join(f"plumbob: {line}" for line in message.splitlines()), file=sys.stderr)
    if as_json:
        _print_error(message, exit_code)
    return exit_code


def _print_error(message: str, exit_code: int) -> None:
    print(json.dumps({"event": "error", "error": message, "exit_code": exit_code}), flush=True)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse; settings may stand after an option too, where argparse has closed its list of them."""
    parser = _parser("--json" in argv)
    arguments, rest = parser.parse_known_args(argv)
    if rest and ("overrides" not in arguments or any(item.startswith("-") for item in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def parser_of_words(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser with the options of the command among these words, for who looks into it without parsing."""
    parser = level = _parser(as_json=False)
    for word in words:
        if word in level.commands:
            level = level.commands[word]
            level.populate()
    return parser


def _parser(as_json: bool) -> _Parser:
    parser = _Parser(
        as_json=as_json,
        prog="plumbob",
        description="Aligns language models: pre-training, fine-tuning, reward models, PPO, GRPO, DPO, KTO and more.",
        epilog="CONFIG is a preset's name, such as toy, or a YAML file. `plumbob run toy` needs nothing else.",
    )
    parser.add_argument("--version", action=_Versions, help="print the versions of Plumbob and what it runs on")
    parser.add_commands(COMMANDS)
    return parser


class _Parser(argparse.ArgumentParser):
    """Tells a script too what is wrong with the arguments."""

    def __init__(self, *, as_json: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self._as_json = as_json
        self.commands: dict[str, _CommandParser] = {}

    def add_commands(self, commands: Sequence[Command | CommandGroup]) -> None:
        names = self.add_subparsers(required=True, metavar="COMMAND", parser_class=_CommandParser)
        width = shutil.get_terminal_size().columns - 2
        for command in commands:
            self.commands[command.NAME] = names.add_parser(
                command.NAME,
                help=command.ABOUT,
                description=textwrap.fill(command.ABOUT, width),
                epilog=f"example: {command.EXAMPLE}",
                formatter_class=argparse.RawDescriptionHelpFormatter,  # The example on one line, to be copied.
                command=command,
                as_json=self._as_json,
            )

    def error(self, message: str) -> NoReturn:
        if self._as_json:
            _print_error(message, USER_ERROR)
        super().error(message)


class _Versions(argparse.Action):
    """Prints the versions when it is met, as `--help` does: no command is needed beside it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(nargs=0, **settings)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from plumbob.configs.environment import MAIN_PACKAGES, versions

        print("\n".join(f"{package} {version}" for package, version in versions(MAIN_PACKAGES).items()))
        parser.exit()


class _CommandParser(_Parser):
    """Asks for its command's options when the command was typed: those of `submit` come from every launcher."""

    def __init__(self, *, command: Command | CommandGroup, **settings: Any) -> None:
        super().__init__(**settings)
        self._command: Command | CommandGroup | None = command
        self.set_defaults(command=command)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.populate()
        return super().parse_known_args(args, namespace)

    def populate(self) -> None:
        """Take the options of the command or, of a group, its commands; once."""
        match self._command:
            case CommandGroup(commands=commands):
                self.add_commands(commands)
            case None:
                pass
            case command:
                command.add_options(self)
        self._command = None


if __name__ == "__main__":
    sys.exit(main())
