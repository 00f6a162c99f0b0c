"""`plumbob resume`: resume a run that was stopped, from its newest checkpoint."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from plumbob.console.foreground import run_in_foreground
from plumbob.console.options import RESUME_OVERRIDES, add_json, add_overrides, add_run, add_trace
from plumbob.core.activities import activities
from plumbob.core.spans import spans

if TYPE_CHECKING:
    from plumbob.driver.api import RunResult
    from plumbob.trainers.metrics.step_record import Listener

NAME = "resume"
ABOUT = "resume a run that was stopped"
EXAMPLE = "plumbob resume runs/toy rollout.num_workers=2"


def add_options(parser: ArgumentParser) -> None:
    add_run(parser)
    add_overrides(parser, RESUME_OVERRIDES)
    add_trace(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    from plumbob.driver.run_folder.folder import find_run

    folder = find_run(arguments.run)

    if arguments.trace:
        spans.request()

    def start(listener: Listener) -> RunResult:
        with activities.during("loading the libraries"):
            from plumbob.driver.api import resume
        return resume(folder, listener, overrides=arguments.overrides)

    return run_in_foreground(folder, arguments.json, start)
