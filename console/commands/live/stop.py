"""`plumbob stop`: ask a running run to stop where little is lost."""

from argparse import ArgumentParser, Namespace

from plumbob.console.exit_codes import OK
from plumbob.console.options import add_live_run

NAME = "stop"
ABOUT = "ask a run to stop; it can be resumed"
EXAMPLE = "plumbob stop runs/toy"


def add_options(parser: ArgumentParser) -> None:
    add_live_run(parser)


def run(arguments: Namespace) -> int:
    from plumbob.driver import steering

    steering.stop(arguments.run, arguments.address)
    print(f"{arguments.run} stops before it samples or learns again; resume it with: plumbob resume {arguments.run}")
    return OK
