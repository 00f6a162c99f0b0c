"""`plumbob resume`: resume a run that was stopped, from its newest checkpoint."""

from argparse import ArgumentParser, Namespace

from plumbob.console.foreground import run_in_foreground
from plumbob.console.options import RESUME_OVERRIDES, add_json, add_overrides, add_run

NAME = "resume"
ABOUT = "resume a run that was stopped"


def add_options(parser: ArgumentParser) -> None:
    add_run(parser)
    add_overrides(parser, RESUME_OVERRIDES)
    add_json(parser)


def run(arguments: Namespace) -> int:
    from plumbob.driver.run_folder.folder import find_run

    folder = find_run(arguments.run)
    from plumbob.driver.api import resume

    overrides = arguments.overrides
    return run_in_foreground(folder, arguments.json, lambda listener: resume(folder, listener, overrides=overrides))
