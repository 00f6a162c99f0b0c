"""What a campaign found, as tables for people: `python -m tests.multihost.faults.report FILE`."""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

STEP_S = 60.0
STEPS_PER_FAULT = 10
"""Of the training for which the share of time that makes progress is computed."""

LOST_WORK = 0.5
"""Of a step, on average, when a fault at a random moment makes the step begin anew. A worker of a pool costs less."""

ROLE_KINDS = ("worker killed", "driver killed")
"""Faults by whose recovery a role is measured."""

ASYNCHRONOUS = "asynchronous"
"""How settings begin that have rows of their own: others work on while a role recovers, and steps take another time."""


def table(found: dict[str, Any]) -> str:
    """The faults by kind and target, and the share of time that made progress by role."""
    return "\n\n".join([faults_table(found), roles_table(found)])


def faults_table(found: dict[str, Any]) -> str:
    by_kind: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for outcome in found["outcomes"]:
        by_kind[outcome["fault"]["kind"], outcome["fault"]["target"]].append(outcome)
    rows = [["fault", "of", "phases", "survived", "median s lost", "worst s lost"]]
    for (kind, target), outcomes in sorted(by_kind.items()):
        lost = [outcome["lost_s"] for outcome in outcomes]
        phases = sorted({outcome["fault"]["phase"] for outcome in outcomes})
        figures = [str(len(lost)), f"{median(lost):.1f}", f"{max(lost):.1f}"]
        rows.append([kind, target, ", ".join(phases), *figures])
    survived, failed = len(found["outcomes"]), len(found["failures"])
    return f"{markdown(rows)}\n\n{survived} faults survived, {failed} not, in {found['seconds']:.0f} s."


def roles_table(found: dict[str, Any]) -> str:
    """The share of time that makes progress, at one fault in STEPS_PER_FAULT steps; its losses are those of kills.

    What the toy loses has all in it; of longer steps the half that is made again comes on top.
    """
    lost: dict[tuple[bool, str], list[float]] = defaultdict(list)
    for outcome in found["outcomes"]:
        if outcome["fault"]["kind"] in ROLE_KINDS:
            is_ahead = outcome["run"].startswith(ASYNCHRONOUS)
            lost[is_ahead, outcome["fault"]["target"]].append(max(0.0, outcome["lost_s"]))
    rows = [
        ["role", "killed", "median s lost", "worst", "share, toy", f"share, {STEP_S:.0f} s a step", "with the worst"]
    ]
    for (is_ahead, target), seconds in sorted(lost.items()):
        step_s = median(s for setting, s in found["step_s"].items() if setting.startswith(ASYNCHRONOUS) == is_ahead)
        role = f"{target}, {ASYNCHRONOUS}" if is_ahead else target
        middle, worst = median(seconds), max(seconds)
        shares = [share(step_s, middle, 0.0), share(STEP_S, middle, LOST_WORK), share(STEP_S, worst, LOST_WORK)]
        figures = [f"{middle:.1f}", f"{worst:.1f}", *(f"{value:.2f}" for value in shares)]
        rows.append([role, str(len(seconds)), *figures])
    return markdown(rows)


def share(step_s: float, lost_s: float, lost_work: float) -> float:
    """Time that made progress over all time, in [0, 1]; `lost_work` in steps."""
    progress_s = STEPS_PER_FAULT * step_s
    return progress_s / (progress_s + lost_s + lost_work * step_s)


def markdown(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text())))
