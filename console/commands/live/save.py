"""`plumbob save`: ask a running run for a checkpoint at the end of its step."""

from argparse import ArgumentParser, Namespace

from plumbob.console.exit_codes import OK
from plumbob.console.options import add_live_run

NAME = "save"
ABOUT = "ask a run for a checkpoint at the end of its step"
EXAMPLE = "plumbob save runs/toy"


def add_options(parser: ArgumentParser) -> None:
    add_live_run(parser)


def run(arguments: Namespace) -> int:
    from plumbob.driver import steering

    steering.save(arguments.run, arguments.address)
    print(f"{arguments.run} makes a checkpoint when the step that it is at has ended, and continues")
    return OK
