"""`plumbob status`: where a run stands: its step, its workers, its responses by policy version."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from plumbob.console.exit_codes import OK
from plumbob.console.options import add_json, add_live_run
from plumbob.console.tables import aligned, duration, number
from plumbob.core.outside import from_outside

if TYPE_CHECKING:
    from plumbob.cluster.run_status import RunStatus
    from plumbob.driver.steering import RunState
    from plumbob.trainers.metrics.response_counts import CountsByVersion

NAME = "status"
ABOUT = "say where a run stands: its step, its workers, its responses"
EXAMPLE = "plumbob status runs/toy"

NUM_VERSIONS = 8
"""The newest, which are shown to a person."""

STALE_S = 10.0
"""A status that is older than that is shown with its age."""

COUNTED = ("issued", "finished", "scored", "trained")


def add_options(parser: ArgumentParser) -> None:
    add_live_run(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """From the run itself, or else from what it wrote last."""
    from plumbob.console.display import print_json
    from plumbob.driver import steering

    found = steering.status(arguments.run, arguments.address)
    if arguments.json:
        print_json(found.as_dict(), sys.stdout)
    else:
        with from_outside(f"{arguments.run}: the status that it wrote cannot be shown", "its status.json is damaged"):
            shown = lines(found)
        print("\n".join(shown))
    return OK


def lines(found: RunState) -> list[str]:
    """What a person reads."""
    status = found.status
    if status is None:
        return ["running; no report yet"]
    age_s = max(time.time() - status.time, 0.0)
    # A run reports nothing while it learns: what it reported before that still holds.
    running = f"running, as of {duration(age_s)} ago" if age_s > STALE_S else "running"
    state = running if found.is_running else f"{found.why_not}\nlast heard of {duration(age_s)} ago"
    rows = [f"{state}; {_stage_line(status, found.is_running)}"]
    if status.step is not None and status.step.seconds:
        phases = ", ".join(f"{phase} {number(seconds)}" for phase, seconds in status.step.seconds.items())
        rows.append(f"seconds of the last step: {phases}")
    if status.last_message:
        rows.append(f"last message: {status.last_message}")
    rows.append(f"workers lost so far: {status.workers_lost}")
    return rows + _worker_table(status) + _response_table(status.responses)


def _stage_line(status: RunStatus, is_running: bool) -> str:
    """The last stage of a run that is over may have no steps, as an evaluation has none."""
    if status.stage is None:
        return "no stage yet"
    if status.step is None:
        return f"{status.stage}: no step yet" if is_running else status.stage
    return f"{status.stage}: step {status.step.step} of {status.step.num_steps}"


def _worker_table(status: RunStatus) -> list[str]:
    rows = [["worker", "host", "state", "done"]]
    for group in status.workers.values():
        for row in group:
            done = "" if row.num_done is None else str(row.num_done)
            rows.append([row.worker, row.host, row.state or "", done])
    return ["", *aligned(rows)] if len(rows) > 1 else []


def _response_table(responses: CountsByVersion | None) -> list[str]:
    if responses is None:
        return []
    rows = [["version", *COUNTED, "dropped"]]
    for version, counts in list(responses.versions.items())[-NUM_VERSIONS:]:
        dropped = ", ".join(f"{count} {reason}" for reason, count in counts.dropped.items())
        rows.append([str(version), *(str(getattr(counts, name)) for name in COUNTED), dropped or "0"])
    return ["", "responses by the policy version that they were issued under", *aligned(rows)]
