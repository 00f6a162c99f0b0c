"""`plumbob runs list`: the runs of a folder, one a line: state, step, result, size on disk, age."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plumbob.console.exit_codes import OK
from plumbob.console.options import add_json
from plumbob.console.tables import aligned, duration, printable, stage_metrics

if TYPE_CHECKING:
    from plumbob.driver.run_folder.listed_run import ListedRun

NAME = "list"
ABOUT = "list the runs of a folder: state, step, result, size on disk, age"
EXAMPLE = "plumbob runs list"

TITLES = ["name", "kind", "state", "step", "size", "changed", "result"]

NUM_RESULTS = 2
"""Of a run's metrics, the most telling, which stand in the table."""

UNITS = ("B", "kB", "MB", "GB", "TB")
THOUSAND = 1000


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="FOLDER", nargs="?", type=Path, default=Path("runs"), help="of the runs; default: runs"
    )
    add_json(parser)


def run(arguments: Namespace) -> int:
    from plumbob.console.display import print_json
    from plumbob.core.outside import from_outside
    from plumbob.driver.run_folder.listed_run import listed_run, runs_in

    with from_outside(f"{arguments.folder}: cannot be looked into", "give a folder of runs that may be read"):
        folder: Path = arguments.folder.expanduser()
    found = sorted((listed_run(path) for path in runs_in(folder)), key=lambda run: -run.changed)
    if arguments.json:
        print_json({"folder": str(folder), "runs": [run.as_dict() for run in found]}, sys.stdout)
    elif found:
        print("\n".join(printable(line) for line in lines(found, folder, time.time())))
    else:
        print(f"{folder}: no runs; begin one: plumbob run toy, or plumbob init for your own data")
    return OK


def lines(runs: Sequence[ListedRun], folder: Path, now: float) -> list[str]:
    """The newest first; `now` in seconds since 1970. The result comes last, to the left, as it may be long."""
    rows = [[*_cells(run, folder, now)] for run in runs]
    heads = aligned([TITLES[:-1], *rows])
    return [f"{head}  {last}".rstrip() for head, last in zip(heads, [TITLES[-1], *map(_result, runs)], strict=True)]


def size(num_bytes: int) -> str:
    """Such as "812 B", "3.1 MB"."""
    value, unit = float(num_bytes), 0
    while value >= THOUSAND and unit < len(UNITS) - 1:
        value, unit = value / THOUSAND, unit + 1
    return f"{num_bytes} B" if unit == 0 else f"{value:.1f} {UNITS[unit]}"


def _cells(run: ListedRun, folder: Path, now: float) -> list[str]:
    step = run.stage or "" if run.step is None else f"{run.stage} {run.step}/{run.num_steps}"
    age = f"{duration(int(max(now - run.changed, 0)))} ago"
    return [str(run.folder.relative_to(folder)), run.kind, run.state, step, size(run.num_bytes), age]


def _result(run: ListedRun) -> str:
    if run.why:
        return run.why
    metrics = {title: text for title, text in stage_metrics(run.result).items() if title not in ("time", "memory")}
    return ", ".join(" ".join(pair) for pair in list(metrics.items())[:NUM_RESULTS])
