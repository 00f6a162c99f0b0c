"""A run as one file that opens without a server: the pages with a bounded sample of its data inside."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException

from plumbob.configs.environment import versions
from plumbob.console.web.page_modules import one_file
from plumbob.console.web.run_answers import RunAnswers

STATIC = Path(__file__).parent / "static"
NUM_STEPS = 8
"""Steps of the journal, spread over the run, of which whole groups are taken."""

MAX_RESPONSES = 64
MAX_TOKENS = 60_000
MAX_RECORDS = 4_000
"""Of a stage's metrics: of more steps, as many evenly spread, the last among them."""

NUM_PAIRS = 200


def exported_run(answers: RunAnswers, run_id: str) -> bytes:
    """HTML. Raises HTTPException where there is no such run."""
    path = {"run": run_id}
    base = f"/api/runs/{run_id}"
    run = answers.run(path, {})
    stages = [stage["name"] for stage in run["stages"]]
    found = {
        "/api/runs": {"runs": [answers.line(answers.location(path))]},
        base: run,
        f"{base}/events": answers.events(path, {}),
        f"{base}/config": answers.config(path, {}),
    }
    for stage in ("", *stages):
        records = _thinned(answers.steps(path, {"stage": stage}))
        found[f"{base}/metrics?stage={stage}" if stage else f"{base}/metrics"] = records
    content = {
        "session": session(answers, can_steer=False, needs_token=False),
        "run": run_id,
        "answers": found,
        "rollouts": _of_stages(stages, lambda stage: _rollouts(answers, path, stage)),
        "pairs": _of_stages(stages, lambda stage: _pairs(answers, path, stage)),
    }
    return one_file(STATIC, f"{run['name']} · Plumbob", content)


def session(answers: RunAnswers, can_steer: bool, needs_token: bool) -> dict[str, Any]:
    """What a page is given first."""
    return {
        "version": versions(["plumbob"]).get("plumbob", ""),
        "runs_folder": answers.index.root.name,
        "can_steer": can_steer,
        "needs_token": needs_token,
    }


def _of_stages(stages: list[str], read: Callable[[str], dict[str, Any] | None]) -> dict[str, Any]:
    """By the stage's name; the newest that has something also where no stage is named."""
    found = {stage: answer for stage in stages if (answer := read(stage)) is not None}
    return found | ({"": next(reversed(found.values()))} if found else {})


def _thinned(answer: dict[str, Any]) -> dict[str, Any]:
    records = answer["records"]
    every = -(-len(records) // MAX_RECORDS) or 1
    return answer | {"records": records[::-1][::every][::-1], "more": False}


def _rollouts(answers: RunAnswers, path: Mapping[str, str], stage: str) -> dict[str, Any] | None:
    """Whole groups of steps from the first to the last, until there are enough."""
    listing = answers.rollouts(path, {"stage": stage, "limit": "1"})
    steps: list[int] = listing["steps"]
    if not listing["num_rows"]:
        return None
    last = len(steps) - 1
    chosen = sorted({steps[round(index * last / max(NUM_STEPS - 1, 1))] for index in range(NUM_STEPS)}, reverse=True)
    rounds = zip_longest(*(_groups(answers, path, stage, step) for step in chosen), fillvalue=())
    rows: list[dict[str, Any]] = []
    for group in (group for groups in rounds for group in groups):
        views = _views(answers, path, stage, group)
        num_tokens = sum(view["length"] for view in (*rows, *views))
        if rows and (len(rows) + len(views) > MAX_RESPONSES or num_tokens > MAX_TOKENS):
            break
        rows += views[:MAX_RESPONSES]
    rows.sort(key=lambda view: (-view["step"], view["row"]))
    return {"total": listing["num_rows"], "rows": rows}


def _views(
    answers: RunAnswers, path: Mapping[str, str], stage: str, locations: Sequence[dict[str, str]]
) -> list[dict[str, Any]]:
    """Of the responses at those locations that can be read: a damaged file has nothing to show."""
    views = []
    for location in locations:
        with contextlib.suppress(HTTPException):
            views.append(answers.row({**path, **location}, {"stage": stage}))
    return views


def _groups(answers: RunAnswers, path: Mapping[str, str], stage: str, step: int) -> Iterator[list[dict[str, str]]]:
    """Of a step's first groups the locations of their rows."""
    asked = {"stage": stage, "step_from": str(step), "step_to": str(step), "order": "asc", "limit": str(MAX_RESPONSES)}
    groups: dict[str, list[dict[str, str]]] = {}
    for row in answers.rollouts(path, asked)["rows"]:
        groups.setdefault(row["group_id"], []).append({"step": str(step), "row": str(row["row"])})
    yield from list(groups.values())[:MAX_RESPONSES]


def _pairs(answers: RunAnswers, path: Mapping[str, str], stage: str) -> dict[str, Any] | None:
    """Those of the lowest margin; their metrics are of all that there are."""
    try:
        found = answers.pairs(path, {"stage": stage, "limit": str(NUM_PAIRS)})
    except HTTPException:
        return None
    return found if found["available"] else None
