"""The responses of a stage's journal by filter and order, with their histogram (`find_rollouts`)."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from plumbob.console.web.journal_views.column_cache import FINISH_REASONS, ColumnCache, FlatColumns
from plumbob.console.web.journal_views.response_rows import listed_rows

NUM_BINS = 30
MAX_FILES = 100_000
MAX_VERSIONS = 5_000
TEXT_S = 4.0
"""How long a search in the texts takes at most: it begins with the newest steps."""

NUM_READERS = 4
MAX_SCORE = 1e100
"""Of the histogram: no width of its bins overflows."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class RolloutFilter:
    """Which responses, and in which order. Bounds are inclusive; None does not filter.

    Attributes:
        part: whose reward `part_min` and `part_max` bound.
        version: of which a token is.
        finish: a reason to finish.
        dropped: whether nothing was learnt from it.
        text: looked for in prompt and response, any case.
    """

    step_from: int | None = None
    step_to: int | None = None
    score_min: float | None = None
    score_max: float | None = None
    part: str | None = None
    part_min: float | None = None
    part_max: float | None = None
    length_min: int | None = None
    length_max: int | None = None
    version: int | None = None
    finish: str | None = None
    dropped: bool | None = None
    text: str | None = None
    sort: Literal["step", "score", "length"] = "step"
    is_descending: bool = True
    limit: int = 50
    offset: int = 0

    @property
    def counts_tokens(self) -> bool:
        """Whether a filter needs each response's tokens."""
        return any(bound is not None for bound in (self.length_min, self.length_max, self.version))


@dataclass(frozen=True)
class _Step:
    """Of one file the rows that are left: at first all, then those that all filters but the score's leave."""

    step: int
    path: Path
    columns: FlatColumns
    rows: Rows


def find_rollouts(files: Sequence[tuple[int, Path]], cache: ColumnCache, wanted: RolloutFilter) -> dict[str, Any]:
    """A page of the responses with what the whole journal has to choose from.

    Args:
        files: (step, file) of the journal.
    """
    files = files[-MAX_FILES:]
    with ThreadPoolExecutor(NUM_READERS) as readers:
        flat = list(readers.map(lambda found: cache.flat(found[1]), files))
        known = [
            _Step(step, path, columns, np.arange(len(columns.scores)))
            for (step, path), columns in zip(files, flat, strict=True)
            if columns is not None
        ]
        inside = [step for step in known if _is_between(step.step, wanted.step_from, wanted.step_to)]
        steps = list(readers.map(lambda step: _filtered(step, cache, wanted), inside))
        searched, is_cut = sum(len(step.rows) for step in steps), False
        if wanted.text:
            steps, searched, is_cut = _with_text(steps, cache, wanted.text)
        chosen = [_by_score(step, wanted) for step in steps]
        page = _page(steps, chosen, cache, wanted, readers)
        rows = listed_rows([(steps[file].step, steps[file].path, row) for file, row in page], cache)
    newest = next((columns for step in reversed(known) if (columns := cache.rewards(step.path)) is not None), {})
    return {
        "rows": rows,
        "total": sum(map(len, chosen)),
        "num_rows": sum(len(step.rows) for step in known),
        "searched": searched,
        "is_cut": is_cut,
        "steps": [step for step, _ in files],
        "parts": list(newest),
        "versions": _versions([step.columns for step in known]),
        "finish_reasons": _finish_reasons([step.columns for step in known]),
        "histogram": _histogram([step.columns.scores[step.rows] for step in steps]),
        "damaged": [path.name for (_, path), columns in zip(files, flat, strict=True) if columns is None],
    }


# ------------------------------------------------------------------------------------------------------------- filters


def _filtered(step: _Step, cache: ColumnCache, wanted: RolloutFilter) -> _Step:
    path, columns = step.path, step.columns
    keep = np.ones(len(columns.scores), np.bool_)
    if wanted.finish is not None:
        keep &= columns.finish == (FINISH_REASONS.index(wanted.finish) if wanted.finish in FINISH_REASONS else -2)
    if wanted.dropped is not None:
        keep &= columns.dropped == wanted.dropped
    if wanted.version is not None and columns.versions is not None:
        low, high = columns.versions
        keep &= low <= wanted.version <= high
    if wanted.part is not None:
        parts = (cache.rewards(path) if keep.any() else None) or {}
        keep &= _within(parts.get(wanted.part, np.full(len(keep), np.nan)), wanted.part_min, wanted.part_max)
    if wanted.counts_tokens and keep.any():
        counts = cache.token_counts(path)
        if counts is None:
            keep[:] = False
        else:
            keep &= _within(counts.lengths, wanted.length_min, wanted.length_max)
            if wanted.version is not None:
                keep &= (counts.version_min <= wanted.version) & (wanted.version <= counts.version_max)
    return replace(step, rows=np.flatnonzero(keep))


def _is_between(step: int, low: int | None, high: int | None) -> bool:
    return (low is None or low <= step) and (high is None or step <= high)


def _within(values: NDArray[Any], low: float | None, high: float | None) -> NDArray[np.bool_]:
    """False of NaN."""
    keep = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(len(values), np.bool_)
    if low is not None:
        keep &= values >= low
    if high is not None:
        keep &= values <= high
    return keep


def _by_score(step: _Step, wanted: RolloutFilter) -> Rows:
    if wanted.score_min is None and wanted.score_max is None:
        return step.rows
    return step.rows[_within(step.columns.scores[step.rows], wanted.score_min, wanted.score_max)]


def _with_text(steps: list[_Step], cache: ColumnCache, text: str) -> tuple[list[_Step], int, bool]:
    """Those with the text, how many rows were looked at, and whether the time for that was over before the end."""
    deadline, num_rows = time.monotonic() + TEXT_S, 0
    found: list[_Step] = []
    for position, step in enumerate(reversed(steps)):
        if time.monotonic() > deadline:
            return found[::-1], num_rows, position < len(steps)
        table = cache.columns(step.path, ["prompt", "response"]) if len(step.rows) else None
        if table is None:
            continue
        texts = table.take(step.rows)
        hits = [
            pc.fill_null(pc.match_substring(texts[name], text, ignore_case=True), False).to_numpy()
            for name in texts.schema.names
        ]
        num_rows += len(step.rows)
        found.append(replace(step, rows=step.rows[np.logical_or.reduce(hits)]))
    return found[::-1], num_rows, False


# --------------------------------------------------------------------------------------------------- order and overview


def _page(
    steps: Sequence[_Step],
    chosen: Sequence[Rows],
    cache: ColumnCache,
    wanted: RolloutFilter,
    readers: ThreadPoolExecutor,
) -> list[tuple[int, int]]:
    """(number of the file, row) of the rows that are shown; of equals the newest step first, then by row."""
    if not chosen:
        return []
    file_of = np.repeat(np.arange(len(steps)), [len(rows) for rows in chosen])
    row_of = np.concatenate(chosen)
    match wanted.sort:
        case "step":
            keys = file_of.astype(np.float64)
        case "score":
            keys = np.concatenate([step.columns.scores[rows] for step, rows in zip(steps, chosen, strict=True)])
        case "length":
            counts = readers.map(lambda step: cache.token_counts(step.path), steps)
            lengths = [
                np.zeros(len(rows)) if count is None else count.lengths[rows].astype(np.float64)
                for count, rows in zip(counts, chosen, strict=True)
            ]
            keys = np.concatenate(lengths)
    order = np.lexsort((row_of, -file_of, -keys if wanted.is_descending else keys))
    page = order[wanted.offset : wanted.offset + wanted.limit]
    return list(zip(file_of[page].tolist(), row_of[page].tolist(), strict=True))


def _versions(columns: Sequence[FlatColumns]) -> list[int]:
    """Those that tokens may be of, by the files' statistics; the newest of very many."""
    found: set[int] = set()
    for one in columns:
        if one.versions is not None:
            low, high = one.versions
            found.update(range(max(low, high - MAX_VERSIONS), high + 1))
    return sorted(found)[-MAX_VERSIONS:]


def _finish_reasons(columns: Sequence[FlatColumns]) -> list[str]:
    codes = {int(code) for one in columns for code in np.unique(one.finish)}
    return [name for code, name in enumerate(FINISH_REASONS) if code in codes]


def _histogram(scores: Sequence[NDArray[np.float64]]) -> dict[str, Any]:
    """Of the finite ones: edges [n + 1] and counts [n]; of none both are empty."""
    values = np.concatenate(scores) if scores else np.empty(0)
    values = np.clip(values[np.isfinite(values)], -MAX_SCORE, MAX_SCORE)
    if not len(values):
        return {"edges": [], "counts": []}
    counts, edges = np.histogram(values, NUM_BINS)
    return {"edges": edges.tolist(), "counts": counts.tolist()}
