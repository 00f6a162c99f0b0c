"""`plumbob presets`: list the presets, each with what it is for."""

import sys
from argparse import ArgumentParser, Namespace
from itertools import takewhile

from plumbob.console.exit_codes import OK
from plumbob.console.options import add_json

NAME = "presets"
ABOUT = "list the presets, each with what it is for"
EXAMPLE = "plumbob presets"


def add_options(parser: ArgumentParser) -> None:
    add_json(parser)


def run(arguments: Namespace) -> int:
    from plumbob.configs.load_run import PRESETS, preset_names
    from plumbob.console.display import print_json

    about = {name: purpose((PRESETS / f"{name}.yaml").read_text(encoding="utf-8")) for name in preset_names()}
    if arguments.json:
        print_json(about, sys.stdout)
    else:
        print("\n".join(f"{name:{max(map(len, about))}}  {line}" for name, line in about.items()))
    return OK


def purpose(preset: str) -> str:
    """What a preset's first comment says, up to the command that it shows."""
    comment = takewhile(lambda line: line.startswith("# ") and not line.startswith("#  "), preset.splitlines())
    return " ".join(line.removeprefix("# ") for line in comment).rstrip(":")
