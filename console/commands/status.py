"""`plumbob status`: where a run stands: its step, its workers, its responses by policy version."""

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from plumbob.console.exit_codes import OK
from plumbob.console.options import add_json, add_live_run
from plumbob.console.tables import aligned, duration, number

NAME = "status"
ABOUT = "say where a run stands: its step, its workers, its responses"

NUM_VERSIONS = 8
"""The newest, which are shown to a person."""

STALE_S = 10.0
"""A status that is older than that is shown with its age."""

LEDGER_COLUMNS = ("issued", "finished", "scored", "trained")


def add_options(parser: ArgumentParser) -> None:
    add_live_run(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """From the run itself, or else from what it wrote down last."""
    from plumbob.console.display import print_json
    from plumbob.driver import steering

    found = steering.status(arguments.run, arguments.address)
    if arguments.json:
        print_json(found, sys.stdout)
    else:
        print("\n".join(lines(found)))
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
