"""`plumbob status`, `scale` and `stop`: look at a run that goes on, and change it, from another terminal or host."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from typing import Any

from plumbob.console.cli import OK
from plumbob.console.display import aligned, print_json
from plumbob.console.tables import duration, number

NUM_VERSIONS = 8
"""The newest, which are shown to a person."""

STALE_S = 10.0
"""A status that is older than that is shown with its age."""

LEDGER_COLUMNS = ("issued", "finished", "scored", "trained")


def status(arguments: argparse.Namespace) -> int:
    """Where the run stands, from the run itself, or else from what it wrote down last."""
    from plumbob.driver import steering

    found = steering.status(arguments.run, arguments.address)
    if arguments.json:
        print_json(found, sys.stdout)
    else:
        print("\n".join(lines(found)))
    return OK


def scale(arguments: argparse.Namespace) -> int:
    """Change the number of rollout workers of a run that is going on, or let those leave that are on a host."""
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
    print(f"{arguments.run} stops before it samples or learns again; go on later with: plumbob resume {arguments.run}")
    return OK


def lines(found: Mapping[str, Any]) -> list[str]:
    """What a person reads."""
    age_s = max(time.time() - found.get("time", time.time()), 0.0)
    # A run tells nothing of itself while it learns: what it told before that still says so.
    running = f"running, as of {duration(age_s)} ago" if age_s > STALE_S else "running"
    state = running if found["running"] else f"{found['why']}\nlast heard of {duration(age_s)} ago"
    step = f"step {found['step']} of {found['num_steps']}" if "step" in found else "no step yet"
    stage = f"{found['stage']}: {step}" if "stage" in found else "no stage yet"
    rows = [f"{state}; {stage}"]
    if found.get("seconds"):
        phases = ", ".join(f"{phase} {number(seconds)}" for phase, seconds in found["seconds"].items())
        rows.append(f"seconds of the last step: {phases}")
    if found.get("last_message"):
        rows.append(f"last message: {found['last_message']}")
    rows.append(f"workers lost so far: {found.get('workers_lost', 0)}")
    return rows + _worker_table(found.get("workers", {})) + _ledger_table(found.get("answers"))


def _worker_table(workers: Mapping[str, list[Mapping[str, Any]]]) -> list[str]:
    rows = [["worker", "host", "state", "done"]]
    for group in workers.values():
        for worker in group:
            done = worker.get("answers", worker.get("scores", ""))
            rows.append([worker["worker"], worker["host"], worker.get("state", ""), str(done)])
    return ["", *aligned(rows)] if len(rows) > 1 else []


def _ledger_table(responses: Mapping[str, Any] | None) -> list[str]:
    if not responses:
        return []
    rows = [["version", *LEDGER_COLUMNS, "dropped"]]
    for version, counts in list(responses["versions"].items())[-NUM_VERSIONS:]:
        dropped = ", ".join(f"{count} {reason}" for reason, count in counts["dropped"].items())
        rows.append([version, *(str(counts[name]) for name in LEDGER_COLUMNS), dropped or "0"])
    return ["", "responses by the policy version that they were issued under", *aligned(rows)]
