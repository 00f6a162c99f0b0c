"""`plumbob status`, `scale` and `stop`: look at a run that is running, and change it, from another terminal or host."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from plumbob.console.cli import OK
from plumbob.console.display import aligned, print_json
from plumbob.console.tables import duration, number

if TYPE_CHECKING:
    from plumbob.cluster.run_status import RunStatus
    from plumbob.driver.steering import RunState

NUM_VERSIONS = 8
"""The newest, which are shown to a person."""

STALE_S = 10.0
"""A status that is older than that is shown with its age."""

COUNTED = ("issued", "finished", "scored", "trained")


def status(arguments: argparse.Namespace) -> int:
    """Where the run stands, from the run itself, or else from what it wrote last."""
    from plumbob.driver import steering

    found = steering.status(arguments.run, arguments.address)
    if arguments.json:
        print_json(found.as_dict(), sys.stdout)
    else:
        print("\n".join(lines(found)))
    return OK


def scale(arguments: argparse.Namespace) -> int:
    """Change the number of rollout workers of a run that is running, or let those on a host leave."""
    from plumbob.driver import steering

    if arguments.leave is not None:
        steering.leave(arguments.run, arguments.leave, arguments.address)
        print(
            f"{arguments.leave}: rollout workers and scorers there end what they are at and leave, and others start "
            f"where there is room; learners stay until the host goes"
        )
        return OK
    before = steering.scale(arguments.run, arguments.rollout_workers, arguments.address)
    print(f"rollout workers: {before} become {arguments.rollout_workers}; who leaves finishes its responses first")
    return OK


def stop(arguments: argparse.Namespace) -> int:
    """Ask a run to stop where little is lost."""
    from plumbob.driver import steering

    steering.stop(arguments.run, arguments.address)
    print(
        f"{arguments.run} stops before it samples or learns again; resume it later with: plumbob resume {arguments.run}"
    )
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
    rows = [f"{state}; {_stage_line(status)}"]
    if status.step is not None and status.step.seconds:
        phases = ", ".join(f"{phase} {number(seconds)}" for phase, seconds in status.step.seconds.items())
        rows.append(f"seconds of the last step: {phases}")
    if status.last_message:
        rows.append(f"last message: {status.last_message}")
    rows.append(f"workers lost so far: {status.workers_lost}")
    return rows + _worker_table(status) + _response_table(status.responses)


def _stage_line(status: RunStatus) -> str:
    if status.stage is None:
        return "no stage yet"
    if status.step is None:
        return f"{status.stage}: no step yet"
    return f"{status.stage}: step {status.step.step} of {status.step.num_steps}"


def _worker_table(status: RunStatus) -> list[str]:
    rows = [["worker", "host", "state", "done"]]
    for group in status.workers.values():
        for row in group:
            done = "" if row.num_done is None else str(row.num_done)
            rows.append([row.worker, row.host, row.state or "", done])
    return ["", *aligned(rows)] if len(rows) > 1 else []


def _response_table(responses: Mapping[str, Any] | None) -> list[str]:
    if not responses:
        return []
    rows = [["version", *COUNTED, "dropped"]]
    for version, counts in list(responses["versions"].items())[-NUM_VERSIONS:]:
        dropped = ", ".join(f"{count} {reason}" for reason, count in counts["dropped"].items())
        rows.append([version, *(str(counts[name]) for name in COUNTED), dropped or "0"])
    return ["", "responses by the policy version that they were issued under", *aligned(rows)]
