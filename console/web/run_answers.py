"""What the server answers, path by path, from the folders of runs: for its routes, and for an exported file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from starlette.exceptions import HTTPException

from plumbob.console.web.journal_views.column_cache import ColumnCache
from plumbob.console.web.journal_views.pair_view import PAIRS_FILE, pair_view
from plumbob.console.web.journal_views.response_rows import group_view
from plumbob.console.web.journal_views.rollout_query import RolloutFilter, find_rollouts
from plumbob.console.web.journal_views.token_texts import TokenTexts
from plumbob.console.web.journal_views.token_view import token_view
from plumbob.console.web.run_config import run_config
from plumbob.console.web.run_files.run_content import finite_number
from plumbob.console.web.run_files.run_details import run_details
from plumbob.console.web.run_files.run_facts import RunFacts
from plumbob.console.web.run_files.run_index import RunIndex, RunLocation
from plumbob.console.web.run_files.run_logs import MAX_LIMIT, log_after, log_files
from plumbob.console.web.run_files.run_steps import events_after, steps_after
from plumbob.console.web.run_files.timeline import timeline
from plumbob.console.web.run_files.trace_spans import TraceSpans
from plumbob.rollout.journal import JOURNAL_FOLDER

MAX_PAGE = 500
"""Rows in one answer."""

MAX_NUMBER = 2**53
MAX_TEXT = 500
MAX_JOURNAL_FILES = 100_000

PathParts = Mapping[str, str]
Query = Mapping[str, str]


class RunAnswers:
    """Each method answers one path of the API; those of a run take its parts and its query as they were asked.

    All raise HTTPException, with what to do, for what is not there or asks for too much. Called from several threads.
    """

    def __init__(self, root: Path) -> None:
        self.index = RunIndex(root)
        self._facts, self._cache, self._texts, self._traces = RunFacts(), ColumnCache(), TokenTexts(), TraceSpans()

    def runs(self, path: PathParts, query: Query) -> dict[str, Any]:
        locations = self.index.locations()
        self._facts.keep(locations)
        found = [self._facts.of(location) for location in locations.values()]
        return {"runs": sorted(found, key=lambda run: (-run["updated"], run["id"]))}

    def line(self, location: RunLocation) -> dict[str, Any]:
        """A run's line in the list of runs."""
        return self._facts.of(location)

    def run(self, path: PathParts, query: Query) -> dict[str, Any]:
        return run_details(self.location(path), self._facts)

    def steps(self, path: PathParts, query: Query) -> dict[str, Any]:
        return steps_after(self.location(path), query.get("stage"), query.get("after", ""))

    def events(self, path: PathParts, query: Query) -> dict[str, Any]:
        return events_after(self.location(path), query.get("after", ""))

    def timeline(self, path: PathParts, query: Query) -> dict[str, Any]:
        return timeline(self.location(path), query.get("stage"), self._traces)

    def config(self, path: PathParts, query: Query) -> dict[str, Any]:
        return run_config(self.location(path))

    def logs(self, path: PathParts, query: Query) -> dict[str, Any]:
        return log_files(self.location(path))

    def log(self, path: PathParts, query: Query) -> dict[str, Any]:
        limit = whole(query, "limit", 1, MAX_LIMIT) or 64 * 2**10
        location = self.location(path)
        is_written = self._facts.of(location)["state"] == "running"
        return log_after(location, path["name"], query.get("after", ""), limit, is_written)

    def rollouts(self, path: PathParts, query: Query) -> dict[str, Any]:
        return find_rollouts(self._journal(path, query)[1], self._cache, rollout_filter(query))

    def group(self, path: PathParts, query: Query) -> dict[str, Any]:
        step, file = self._step(path, query)
        return group_view(step, file, path["group"], self._cache)

    def row(self, path: PathParts, query: Query) -> dict[str, Any]:
        step, file = self._step(path, query)
        row = whole(path, "row", 0, MAX_NUMBER)
        assert row is not None
        stage = self._journal(path, query)[0]
        return token_view(self.location(path), stage, step, file, row, self._cache, self._texts)

    def pairs(self, path: PathParts, query: Query) -> dict[str, Any]:
        location = self.location(path)
        file = location.file(location.stage_folder(query.get("stage")), PAIRS_FILE)
        sort = one_of(query, "sort", ("margin", "disagreement", "index"))
        return pair_view(file, self._cache, sort, *page_of(query))

    def location(self, path: PathParts) -> RunLocation:
        return self.index.find(path["run"])

    def _journal(self, path: PathParts, query: Query) -> tuple[str, list[tuple[int, Path]]]:
        """The stage's folder, and (step, file) of its journal: of no stage that is named the newest that has one."""
        location, stage = self.location(path), query.get("stage")
        folders = location.stage_folders() if not stage else [location.stage_folder(stage)]
        for folder in reversed(folders):
            found = step_files_of(location, folder)
            if found:
                return folder, found
        return folders[-1], []

    def _step(self, path: PathParts, query: Query) -> tuple[int, Path]:
        step = whole(path, "step", 0, MAX_NUMBER)
        for number, file in self._journal(path, query)[1]:
            if number == step:
                return number, file
        raise HTTPException(404, f"the journal has no step {step}: choose one from the list of rollouts")


def step_files_of(location: RunLocation, folder: str) -> list[tuple[int, Path]]:
    """(step, file) of a stage's journal, in order. Its folder may lead nowhere else; so may its files."""
    found = []
    for path in location.listing(folder, JOURNAL_FOLDER)[:MAX_JOURNAL_FILES]:
        number = path.name.removeprefix("step-").removesuffix(".parquet")
        if path.name == f"step-{number}.parquet" and number.isascii() and number.isdigit() and len(number) < 16:
            file = path if not path.is_symlink() else location.file(folder, JOURNAL_FOLDER, path.name)
            if file is not None:
                found.append((int(number), file))
    return sorted(found)


# -------------------------------------------------------------------------------------------------------------- queries


def rollout_filter(query: Query) -> RolloutFilter:
    """Raises HTTPException for what is no filter."""
    limit, offset = page_of(query)
    dropped = one_of(query, "dropped", ("", "yes", "no"))
    sort: Literal["step", "score", "length"] = one_of(query, "sort", get_args(Literal["step", "score", "length"]))
    text = query.get("text", "")
    if len(text) > MAX_TEXT:
        raise HTTPException(400, f"text: give at most {MAX_TEXT} letters")
    return RolloutFilter(
        step_from=whole(query, "step_from", 0, MAX_NUMBER),
        step_to=whole(query, "step_to", 0, MAX_NUMBER),
        score_min=number(query, "score_min"),
        score_max=number(query, "score_max"),
        part=query.get("part") or None,
        part_min=number(query, "part_min"),
        part_max=number(query, "part_max"),
        length_min=whole(query, "length_min", 0, MAX_NUMBER),
        length_max=whole(query, "length_max", 0, MAX_NUMBER),
        version=whole(query, "version", -1, MAX_NUMBER),
        finish=query.get("finish") or None,
        dropped=None if not dropped else dropped == "yes",
        text=text or None,
        sort=sort,
        is_descending=one_of(query, "order", ("desc", "asc")) == "desc",
        limit=limit,
        offset=offset,
    )


def page_of(query: Query) -> tuple[int, int]:
    """(limit, offset)."""
    return whole(query, "limit", 1, MAX_PAGE) or 50, whole(query, "offset", 0, MAX_NUMBER) or 0


def whole(query: Query, name: str, low: int, high: int) -> int | None:
    """None where it is not given. Raises HTTPException where it is no whole number between the bounds."""
    given = query.get(name, "")
    if not given:
        return None
    digits = given.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) < 20 and low <= int(given) <= high:
        return int(given)
    raise HTTPException(400, f"{name}={given[:40]!r}: expected a whole number from {low} to {high}")


def number(query: Query, name: str) -> float | None:
    given = query.get(name, "")
    if not given:
        return None
    try:
        found = finite_number(float(given))
    except ValueError:
        found = None
    if found is None:
        raise HTTPException(400, f"{name}={given[:40]!r}: expected a number")
    return found


def one_of(query: Query, name: str, choices: tuple[str, ...]) -> Any:
    """The first where it is not given."""
    given = query.get(name, "") or choices[0]
    if given in choices:
        return given
    raise HTTPException(400, f"{name}={given[:40]!r}: expected one of {', '.join(filter(None, choices))}")
