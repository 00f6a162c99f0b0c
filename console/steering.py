"""`plumbob status`, `scale` and `stop`: look at a run that goes on, and change it, from another terminal or host."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from configs.errors import NotRunningError, UserError
from console.cli import OK
from console.figures import duration, number
from console.live import aligned, print_json

NUM_VERSIONS = 8
"""The newest, which are shown to a person."""

LEDGER_COLUMNS = ("issued", "finished", "scored", "trained")


def status(arguments: argparse.Namespace) -> int:
    """Where the run stands, from the run itself, or else from what it wrote down last."""
    from cluster.control import answer

    missed = None
    try:
        with reached(arguments) as control:
            found = answer(control.status.remote())
    except NotRunningError as error:
        written = last_written(arguments.run)
        if written is None:
            raise
        found, missed = written, str(error)
    if arguments.json:
        print_json({"running": missed is None, **found}, sys.stdout)
    else:
        print("\n".join(lines(found, missed)))
    return OK


def scale(arguments: argparse.Namespace) -> int:
    """Change the number of rollout workers of a run that is going on, or let those leave that are on a host."""
    from cluster.control import answer

    with reached(arguments) as control:
        if arguments.leave is not None:
            answer(control.leave.remote(arguments.leave))
            print(
                f"{arguments.leave}: rollout workers and scorers there end what they are at and leave, and others "
                f"start where there is room; learners stay until the host goes"
            )
            return OK
        before = answer(control.scale.remote(arguments.rollout_workers))
    print(f"rollout workers: {before} become {arguments.rollout_workers}; who leaves finishes its answers first")
    return OK


def stop(arguments: argparse.Namespace) -> int:
    """Ask a run to stop where little is lost."""
    from cluster.control import answer

    with reached(arguments) as control:
        answer(control.stop.remote())
    print(f"{arguments.run} stops before it samples or learns again; go on later with: plumbob resume {arguments.run}")
    return OK


@contextmanager
def reached(arguments: argparse.Namespace) -> Iterator[Any]:
    """The run's control actor: of a name on the cluster at --address, or of the run in a folder.

    Raises:
        NotRunningError: nothing of that name goes on.
        UserError: it cannot be told.
    """
    from cluster.connect import joined
    from cluster.control import find

    if arguments.address is not None:
        address, name = arguments.address, arguments.run
    else:
        address, name = from_folder(arguments.run)
    with joined(address):
        yield find(name)


def from_folder(run: str) -> tuple[str, str]:
    """Address and name of the run that goes on in a folder; a private Ray's token is made ours."""
    from cluster.whereabouts import read_whereabouts
    from console.cli import find_run

    folder = find_run(run)
    reach = read_whereabouts(folder)
    if reach is None:
        raise NotRunningError(
            f"{folder}: this run is not going on; `plumbob resume {folder}` goes on with it. A run that goes on on a "
            f"cluster is reached by its name and --address HOST:PORT"
        )
    if reach.token is not None:
        os.environ["RAY_AUTH_TOKEN"] = reach.token
    return reach.address, reach.name


def last_written(run: str) -> dict[str, Any] | None:
    """The status that the run wrote down last, where its folder can be read."""
    from cluster.watched import STATUS_FILE
    from console.cli import find_run

    try:
        path = find_run(run) / STATUS_FILE
        found: dict[str, Any] = json.loads(path.read_text())
    except (UserError, FileNotFoundError):
        return None
    return found


def lines(found: Mapping[str, Any], missed: str | None) -> list[str]:
    """What a person reads. `missed`: why only what was written down last is known; None of a run that goes on."""
    age = duration(max(time.time() - found.get("time", time.time()), 0.0))
    state = "running" if missed is None else f"{missed}\nlast heard of {age} ago"
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


def _ledger_table(answers: Mapping[str, Any] | None) -> list[str]:
    if not answers:
        return []
    rows = [["version", *LEDGER_COLUMNS, "dropped"]]
    for version, counts in list(answers["versions"].items())[-NUM_VERSIONS:]:
        dropped = ", ".join(f"{count} {reason}" for reason, count in counts["dropped"].items())
        rows.append([version, *(str(counts[name]) for name in LEDGER_COLUMNS), dropped or "0"])
    return ["", "answers by the policy version that they were issued under", *aligned(rows)]
