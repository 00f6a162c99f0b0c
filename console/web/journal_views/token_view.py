"""One response token by token: every number of the journal, its reward as a waterfall, its episode (`token_view`)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from plumbob.configs.resolved_copy import RESOLVED_FILE, config_of
from plumbob.console.web.journal_views.column_cache import ColumnCache
from plumbob.console.web.journal_views.response_rows import (
    damaged_file,
    episode_of,
    failures_of,
    group_locations,
    listed,
    prompt_row_of,
    shown_episode,
    text_of,
)
from plumbob.console.web.journal_views.token_texts import TokenTexts
from plumbob.console.web.run_files.run_content import finite_number, list_at, number_at, read_object, text_at
from plumbob.console.web.run_files.run_index import RunLocation
from plumbob.rollout.token_numbers import td_errors

MAX_TOKENS = 200_000
DIGITS = 7
"""What float32 has: more would be noise of its decimal form."""

NUMBERS = {
    "logprob": "logprobs",
    "ref_logprob": "ref_logprobs",
    "teacher_logprob": "teacher_logprobs",
    "learner_logprob": "learner_logprobs",
    "entropy": "entropies",
    "advantage": "advantages",
    "value": "values",
    "return": "returns",
    "reward": "token_rewards",
    "ratio": "ratios",
}
"""Name on the page -> column of the journal."""

AMOUNTS = ("part", "gate", "teacher")
"""Steps of the shaping that the total is the sum of."""

Numbers = NDArray[np.float64]


def token_view(
    location: RunLocation, stage_folder: str, step: int, path: Path, row: int, cache: ColumnCache, texts: TokenTexts
) -> dict[str, Any]:
    """A row of a step's file. Raises HTTPException where there is no such row, or the file is damaged."""
    table = cache.table(path)
    if table is None:
        raise damaged_file(path)
    if not 0 <= row < len(table):
        raise HTTPException(404, f"step {step} has {len(table)} responses, and no row {row}")
    cells = table.slice(row, 1).to_pylist()[0]
    ids = [int(token) for token in (cells.get("token_ids") or ())[:MAX_TOKENS]]
    mask = _flags(cells, "action_mask", len(ids))
    mask = np.ones(len(ids), np.bool_) if mask is None else mask
    numbers = {name: _numbers(cells, column, len(ids)) for name, column in NUMBERS.items()}
    gamma = number_at(config_of(read_object(location.file(RESOLVED_FILE), [])), "online", "estimator", "gamma")
    shown = numbers | derived(numbers, mask, gamma)
    tokens = {name: None if values is None else _shown(values) for name, values in shown.items()}
    clipped = _flags(cells, "clipped", len(ids))
    versions = cells.get("versions") or ()
    return listed(step, row, cells) | {
        **group_locations(step, path, row, cache),
        "seed": cells.get("seed"),
        "prompt_row": prompt_row_of(cells),
        "failures": failures_of(cells),
        "tokens": {
            **tokens,
            "id": ids,
            "text": texts.of(location, stage_folder, ids) or [f"[{token}]" for token in ids],
            "mask": mask.tolist(),
            "version": [int(version) for version in versions] if len(versions) == len(ids) else [-1] * len(ids),
            "clipped": None if clipped is None else clipped.tolist(),
        },
        "waterfall": waterfall(text_of(cells, "shaping")),
        "episode": shown_episode(episode_of(cells), mask),
    }


def derived(numbers: Mapping[str, Numbers | None], mask: NDArray[np.bool_], gamma: float | None) -> dict[str, Any]:
    """What follows from the recorded numbers; None where one of them is missing.

    kl: log pi - log pi_ref (k1), by the learner's log-probs, or by the sampler's where it has none.
    sampler_gap: |log pi of the learner - log pi of the sampler|.
    td_error: r + gamma V' - V, over the tokens that the policy wrote.
    """
    learner, sampler, ref = numbers["learner_logprob"], numbers["logprob"], numbers["ref_logprob"]
    policy = sampler if learner is None else learner
    values, rewards = numbers["value"], numbers["reward"]
    td_error = None
    if values is not None and rewards is not None and gamma is not None:
        td_error = td_errors(rewards.astype(np.float32), values.astype(np.float32), mask, gamma)
    return {
        "kl": None if policy is None or ref is None else np.where(mask, policy - ref, 0.0),
        "sampler_gap": None if learner is None or sampler is None else np.where(mask, np.abs(learner - sampler), 0.0),
        "td_error": td_error,
    }


def waterfall(shaping: str) -> list[dict[str, Any]] | None:
    """How the score became what was learnt from: amounts that are added, and the level after "total", "scale", "clip"
    and "return". A teacher's step has no total before it. None where the journal does not say.
    """
    try:
        record = json.loads(shaping or "null")
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    bars: list[dict[str, Any]] = []
    total = {"name": "total", "value": number_at(record, "total"), "kind": "total"}
    level, steps = 0.0, list_at(record, "steps")
    # Distillation learns from no reward: there are no parts to be summed.
    is_summed = any(text_at(step, "kind") == "teacher" for step in steps)
    for step in steps:
        kind, name, value = text_at(step, "kind"), text_at(step, "name"), number_at(step, "value")
        if kind is None or value is None:
            continue
        level += value
        if kind not in AMOUNTS and not is_summed:
            bars.append(total)
            is_summed = True
        named = {"name": f"gate: {name}" if kind == "gate" else name or kind, "weight": number_at(step, "weight")}
        if kind in AMOUNTS:
            bars.append(named | {"value": value, "kind": "part"})
        else:
            bars.append(named | {"value": level if kind in ("scale", "clip") else value, "kind": kind})
    if not is_summed:
        bars.append(total)
    return [*bars, {"name": "return", "value": number_at(record, "return"), "kind": "return"}]


# --------------------------------------------------------------------------------------------------------------- lists


def _numbers(cells: Mapping[str, Any], column: str, num_tokens: int) -> Numbers | None:
    """None where the journal has none, or not one a token."""
    found = cells.get(column)
    if not found or len(found) < num_tokens:
        return None
    return np.asarray([np.nan if value is None else value for value in found[:num_tokens]], np.float64)


def _flags(cells: Mapping[str, Any], column: str, num_tokens: int) -> NDArray[np.bool_] | None:
    found = cells.get(column)
    if not found or len(found) < num_tokens:
        return None
    return np.asarray([bool(value) for value in found[:num_tokens]], np.bool_)


def _shown(values: NDArray[np.floating[Any]]) -> list[float | None]:
    return [finite_number(float(f"{value:.{DIGITS}g}")) for value in values]
