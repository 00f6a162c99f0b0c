"""`plumbob run`: run the stages that a preset or a YAML file describes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from plumbob.console.foreground import run_in_foreground
from plumbob.console.options import add_config, add_json, add_trace
from plumbob.core.activities import activities
from plumbob.core.spans import spans

if TYPE_CHECKING:
    from plumbob.driver.api import RunResult
    from plumbob.trainers.metrics.step_record import Listener

NAME = "run"
ABOUT = "run the stages that CONFIG describes"
EXAMPLE = "plumbob run toy online.num_steps=5"


def add_options(parser: ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--resume", action="store_true", help="resume the run of that name, if it has begun")
    add_trace(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    from plumbob.configs.load_run import load_run

    config = load_run(arguments.config, arguments.overrides, arguments.resume)
    from plumbob.driver.run_folder.folder import run_folder

    if arguments.trace:
        spans.request()

    def start(listener: Listener) -> RunResult:
        with activities.during("loading the libraries"):
            if arguments.resume:
                from plumbob.driver.api import run_or_resume as run_config
            else:
                from plumbob.driver.api import run as run_config
        return run_config(config, listener)

    return run_in_foreground(run_folder(config), arguments.json, start)
