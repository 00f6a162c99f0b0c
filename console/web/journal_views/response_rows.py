"""Rows of the journal as lists and groups show them: texts, rewards, episodes, without the numbers of each token."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from plumbob.console.web.journal_views.column_cache import ColumnCache
from plumbob.console.web.run_files.run_content import finite_number

MAX_LISTED_LETTERS = 300
MAX_GROUP = 1_000
LISTED = (
    *("position", "prompt_id", "group_id", "sample_index", "prompt", "response", "score", "rewards", "versions"),
    *("finish_reason", "dropped", "worker", "episode"),
)
GROUPED = (*LISTED, "failures", "prompt_row", "action_mask")

Cells = Mapping[str, Any]


def listed_rows(locations: Sequence[tuple[int, Path, int]], cache: ColumnCache) -> list[dict[str, Any]]:
    """(step, file, row) each -> what a list shows of it, in the order given; each file is read once."""
    of_file: dict[Path, list[int]] = {}
    for _, path, row in locations:
        of_file.setdefault(path, []).append(row)
    found: dict[tuple[Path, int], Cells] = {}
    for path, rows in of_file.items():
        table = cache.columns(path, LISTED)
        if table is not None:
            found |= {(path, row): cells for row, cells in zip(rows, table.take(rows).to_pylist(), strict=True)}
    return [
        listed(step, row, found[path, row])
        | {"prompt": _cut(found[path, row], "prompt"), "response": _cut(found[path, row], "response")}
        for step, path, row in locations
        if (path, row) in found
    ]


def _cut(cells: Cells, name: str) -> str:
    return text_of(cells, name)[:MAX_LISTED_LETTERS]


def listed(step: int, row: int, cells: Cells) -> dict[str, Any]:
    """What lists and views have alike of a row; its texts are whole."""
    versions = [version for version in cells.get("versions") or () if version is not None and version >= 0]
    episode = episode_of(cells)
    return {
        "step": step,
        "row": row,
        "position": cells.get("position"),
        "prompt_id": text_of(cells, "prompt_id"),
        "group_id": text_of(cells, "group_id"),
        "sample_index": cells.get("sample_index"),
        "prompt": text_of(cells, "prompt"),
        "response": text_of(cells, "response"),
        "score": finite_number(cells.get("score")),
        "rewards": {str(name): finite_number(value) for name, value in cells.get("rewards") or ()},
        "length": len(cells.get("versions") or ()),
        "version_min": min(versions, default=None),
        "version_max": max(versions, default=None),
        "finish_reason": cells.get("finish_reason"),
        "dropped": cells.get("dropped"),
        "worker": cells.get("worker"),
        "num_turns": None if episode is None else len(episode["turns"]),
    }


def group_view(step: int, path: Path, group_id: str, cache: ColumnCache) -> dict[str, Any]:
    """All responses of a group, by their sample_index, whole. Raises HTTPException where there is no such group."""
    ids = _column(path, "group_id", cache)
    rows = [row for row, found in enumerate(ids) if found == group_id][:MAX_GROUP]
    if not rows:
        raise HTTPException(404, f"step {step} has no group {group_id[:80]!r}: choose one from the list")
    table = cache.columns(path, GROUPED)
    if table is None:
        raise damaged_file(path)
    found = []
    for row, cells in zip(rows, table.take(rows).to_pylist(), strict=True):
        mask = np.asarray([bool(is_own) for is_own in cells.get("action_mask") or ()], np.bool_)
        shown = {"episode": shown_episode(episode_of(cells), mask), "failures": failures_of(cells)}
        found.append((listed(step, row, cells) | shown, prompt_row_of(cells)))
    found.sort(key=lambda pair: (pair[0]["sample_index"] is None, pair[0]["sample_index"] or 0))
    first, prompt_row = found[0]
    return {
        "step": step,
        "group_id": group_id,
        "prompt": first["prompt"],
        "prompt_row": prompt_row,
        "rows": [row for row, _ in found],
    }


def group_locations(step: int, path: Path, row: int, cache: ColumnCache) -> dict[str, Any]:
    """What comes before and after a row: in its group by sample_index, and the first rows of the groups beside it."""
    ids, indices = _column(path, "group_id", cache), _column(path, "sample_index", cache)
    groups: dict[str, list[int]] = {}
    for other, group in enumerate(ids):
        groups.setdefault(group, []).append(other)
    order = list(groups)
    number = order.index(ids[row])
    own = sorted(groups[ids[row]], key=lambda other: (indices[other] is None, indices[other] or 0, other))
    location = own.index(row)

    def at(rows: Sequence[int], index: int) -> dict[str, int] | None:
        return {"step": step, "row": rows[index]} if 0 <= index < len(rows) else None

    firsts = [min(groups[group], key=lambda other: (indices[other] is None, indices[other] or 0)) for group in order]
    return {
        "previous": at(own, location - 1),
        "next": at(own, location + 1),
        "group_previous": at(firsts, number - 1),
        "group_next": at(firsts, number + 1),
        "group": {"index": number, "size": len(own), "rows": own[:MAX_GROUP]},
    }


def _column(path: Path, name: str, cache: ColumnCache) -> list[Any]:
    table = cache.columns(path, (name,))
    if table is None or name not in table.schema.names:
        raise damaged_file(path)
    return list(table[name].to_pylist())


def damaged_file(path: Path) -> HTTPException:
    return HTTPException(422, f"{path.name} is damaged, or no step of a journal: its rows cannot be shown")


# --------------------------------------------------------------------------------------------------------------- cells


def text_of(cells: Cells, name: str) -> str:
    found = cells.get(name)
    return found if isinstance(found, str) else ""


def failures_of(cells: Cells) -> dict[str, str]:
    return {str(part): str(why) for part, why in cells.get("failures") or ()}


def prompt_row_of(cells: Cells) -> Any:
    return _json_of(cells, "prompt_row")


def episode_of(cells: Cells) -> dict[str, Any] | None:
    """The record of an episode with its `turns`; None where there is none, or it is damaged."""
    found = _json_of(cells, "episode")
    if not isinstance(found, dict) or not isinstance(found.get("turns"), list):
        return None
    turns = [turn for turn in found["turns"] if isinstance(turn, dict) and isinstance(turn.get("end"), int)]
    return {"turns": turns, "failure": found.get("failure")}


def _json_of(cells: Cells, name: str) -> Any:
    try:
        return json.loads(text_of(cells, name) or "null")
    except (ValueError, RecursionError):
        return None


def shown_episode(episode: Mapping[str, Any] | None, action_mask: NDArray[np.bool_]) -> dict[str, Any] | None:
    """The turns of policy and environment, each with its tokens [start, end) of the response.

    Of several messages between two turns of the policy the first has all the tokens between.
    """
    if episode is None:
        return None
    turns: list[dict[str, Any]] = []
    after = 0
    for turn in episode["turns"]:
        end = min(max(turn["end"] + 1, after), len(action_mask))
        own = np.flatnonzero(action_mask[after:end])
        start = after + int(own[0]) if len(own) else after
        if turns and turns[-1]["role"] != "assistant" and start > after:
            first = next(index for index in range(len(turns) - 1, -1, -1) if turns[index]["role"] == "assistant") + 1
            turns[first] |= {"start": after, "end": start}
        reward = finite_number(turn.get("reward"))
        turns.append(
            {"role": "assistant", "content": text_of(turn, "text"), "start": start, "end": end, "reward": reward}
        )
        after = end
        for message in turn.get("messages") or ():
            if isinstance(message, Mapping):
                content = message.get("content")
                text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)
                role = text_of(message, "role") or "environment"
                role = role if role != "assistant" else "environment"
                turns.append({"role": role, "content": text, "start": None, "end": None, "reward": None})
    failure = episode.get("failure")
    return {"turns": turns, "failure": failure if isinstance(failure, str) else None}
