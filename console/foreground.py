"""A run in the foreground: its display while it runs, then its report, its result and an exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from plumbob.console.exit_codes import OK
from plumbob.core.activities import activities
from plumbob.core.errors import RunFailed, RunStopped

if TYPE_CHECKING:
    from plumbob.driver.api import RunResult
    from plumbob.trainers.metrics.step_record import Listener


def run_in_foreground(folder: Path, as_json: bool, start: Callable[[Listener], RunResult]) -> int:
    """Run with a listener, then write the report and print the result; an interrupted run says how to resume it."""
    from plumbob.configs.resolved_copy import RESOLVED_FILE
    from plumbob.console.display import choose_listener, print_json, print_summary
    from plumbob.console.report.page import REPORT_FILE

    try:
        # Ray prints what happens to workers and hosts to whatever stdout is then.
        with choose_listener(as_json, sys.stdout) as listener, redirect_stdout(sys.stderr):
            result = start(listener)
            if not result.was_finished:
                with activities.during("writing the report"):
                    _write_report(result.folder)
    except KeyboardInterrupt:
        if not (folder / RESOLVED_FILE).is_file():
            raise
        resume = f"interrupted; resume from the last checkpoint with: plumbob resume {folder}"
        raise RunStopped(resume) from None
    report = result.folder / REPORT_FILE
    if as_json:
        ended = {"event": "run_ended", "folder": str(result.folder), "report": str(report), "summary": result.summary}
        print_json(ended | ({"was_finished": True} if result.was_finished else {}), sys.stdout)
        return OK
    if result.was_finished:
        print(f"{result.folder}: this run is finished: there is nothing to resume, and nothing was changed")
    print_summary(result.summary, sys.stdout)
    if report.exists():
        print(f"report: {report}")
    return OK


def _write_report(folder: Path) -> None:
    from plumbob.console.report.page import write_report

    try:
        write_report(folder)
    except OSError as error:
        raise RunFailed(
            f"all stages ended well, but the report cannot be written: {error}; write it later with: "
            f"plumbob report {folder}"
        ) from error
