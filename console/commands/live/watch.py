"""`plumbob watch`: the live display of a run that runs elsewhere, from its folder or its control actor."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from plumbob.console.exit_codes import FAILED, OK
from plumbob.console.options import add_json, add_live_run
from plumbob.core.errors import RunStopped

if TYPE_CHECKING:
    from plumbob.console.display import Display
    from plumbob.driver.following.followed_ending import FollowedEnding

NAME = "watch"
ABOUT = "show the live display of a run that runs elsewhere, until it ends; Ctrl-C leaves the run alone"
EXAMPLE = "plumbob watch runs/toy"

POLL_S = 0.5
ASK_S = 2.0
"""Between two questions to a control actor."""


class Feed(Protocol):
    """What tells a listener of a run."""

    def poll(self) -> FollowedEnding | None:
        """Tell what is new; how the run ended once it has."""


def add_options(parser: ArgumentParser) -> None:
    add_live_run(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """Status 1 where the run fails meanwhile, or has failed."""
    from plumbob.console.display import choose_listener

    try:
        with choose_listener(arguments.json, sys.stdout) as listener, _feed(arguments, listener) as (feed, every_s):
            while (ending := feed.poll()) is None:
                time.sleep(every_s)
    except KeyboardInterrupt:
        raise RunStopped(f"the run keeps running; look again: plumbob watch {arguments.run}") from None
    _print_ending(arguments, ending)
    return FAILED if ending.how == "failed" else OK


@contextmanager
def _feed(arguments: Namespace, listener: Display) -> Iterator[tuple[Feed, float]]:
    """From its folder; with --address from the control actor of that name there."""
    if arguments.address is None:
        from plumbob.driver.following.folder_feed import FolderFeed
        from plumbob.driver.run_folder.folder import find_run

        yield FolderFeed(find_run(arguments.run), listener), POLL_S
        return
    from plumbob.driver.following.control_feed import ControlFeed
    from plumbob.driver.steering import asking_for_status

    with asking_for_status(arguments.run, arguments.address) as ask:
        yield ControlFeed(ask, listener), ASK_S


def _print_ending(arguments: Namespace, ending: FollowedEnding) -> None:
    from plumbob.console.display import print_json, print_summary
    from plumbob.console.report.page import REPORT_FILE
    from plumbob.driver.run_folder.folder import find_run, summary_of_finished

    folder: Path | None = None if arguments.address is not None else find_run(arguments.run)
    summary = None if folder is None or ending.how != "finished" else summary_of_finished(folder)
    if arguments.json:
        print_json({"event": "run_ended", "how": ending.how, "why": ending.why, "summary": summary}, sys.stdout)
        return
    if summary is not None:
        print_summary(summary, sys.stdout)
    print(f"{arguments.run}: {ending.how}" + (f": {ending.why}" if ending.why else ""))
    if folder is not None and ending.how in ("stopped", "failed"):
        print(f"resume it with: plumbob resume {folder}")
    if folder is not None and (folder / REPORT_FILE).exists():
        print(f"report: {folder / REPORT_FILE}")
