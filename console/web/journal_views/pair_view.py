"""Held-out pairs with the rewards that a model gives them: accuracy, calibration, the worst disagreements."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbob.console.web.journal_views.column_cache import ColumnCache
from plumbob.console.web.journal_views.response_rows import damaged_file
from plumbob.console.web.run_files.run_content import finite_number

PAIRS_FILE = "heldout_pairs.parquet"
MAX_ROWS = 20_000
NUM_BINS = 10
MAX_MARGIN = 1e100
NO_PAIRS: Mapping[str, Any] = {
    **{"available": False, "rows": [], "total": 0, "matching": 0, "accuracy": None, "calibration": [], "kind": "pairs"},
    **{"histogram": {"edges": [], "counts": []}, "step": None},
}
TEXTS = ("prompt", "chosen", "rejected", "annotator")
NUMBERS = ("margin", "probability", "chosen_reward", "rejected_reward")


def pair_view(path: Path | None, cache: ColumnCache, sort: str, limit: int, offset: int) -> dict[str, Any]:
    """A page of the pairs, with what all of them come to.

    Args:
        path: the stage's file of pairs; None where it has none.
        sort: "index", "margin" (the lowest first) or "disagreement" (alone the pairs on which model and person differ).

    Raises:
        HTTPException: the file is damaged.
    """
    if path is None:
        return dict(NO_PAIRS)
    table = cache.table(path)
    if table is None or "margin" not in table.schema.names:
        raise damaged_file(path)
    found = [_row(cells) for cells in table.slice(0, MAX_ROWS).to_pylist()]
    margins = np.asarray([math.nan if row["margin"] is None else row["margin"] for row in found], np.float64)
    listed = [row for row in found if row["agrees"] is False] if sort == "disagreement" else found
    if sort != "index":
        listed = sorted(listed, key=lambda row: math.inf if row["margin"] is None else row["margin"])
    steps = table["step"].to_pylist()[:1] if "step" in table.schema.names else []
    return {
        "available": True,
        "kind": "single" if any(row["chosen"] is None or row["rejected"] is None for row in found) else "pairs",
        "step": steps[0] if steps else None,
        "rows": listed[offset : offset + limit],
        "total": len(found),
        "matching": len(listed),
        "accuracy": _share_agreeing(margins[np.isfinite(margins)]),
        "calibration": calibration(margins[np.isfinite(margins)]),
        "histogram": _histogram(margins[np.isfinite(margins)]),
    }


def _row(cells: Mapping[str, Any]) -> dict[str, Any]:
    texts = {name: cells[name] if isinstance(cells.get(name), str) else None for name in TEXTS}
    numbers = {name: finite_number(cells.get(name)) for name in NUMBERS}
    margin = numbers["margin"]
    return {"index": cells.get("index"), **texts, **numbers, "agrees": None if margin is None else margin > 0}


def _share_agreeing(margins: NDArray[np.float64]) -> float | None:
    """A tie counts half."""
    return float((np.sign(margins) + 1).mean() / 2) if len(margins) else None


def calibration(margins: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Of each bin of predicted confidence, max(p, 1 - p) of p = sigmoid(margin), the share on which the person agrees.

    With every pair (p, 1) goes its mirror (1 - p, 0), so that confidences below one half say nothing more.
    """
    confidence = 1 / (1 + np.exp(-np.abs(np.clip(margins, -50, 50))))
    bins = np.minimum(((confidence - 0.5) * 2 * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    found = []
    for number in range(NUM_BINS):
        inside = bins == number
        if inside.any():
            found.append(
                {
                    "predicted": float(confidence[inside].mean()),
                    "observed": _share_agreeing(margins[inside]),
                    "count": int(inside.sum()),
                }
            )
    return found


def _histogram(margins: NDArray[np.float64]) -> dict[str, Any]:
    if not len(margins):
        return {"edges": [], "counts": []}
    counts, edges = np.histogram(np.clip(margins, -MAX_MARGIN, MAX_MARGIN), 2 * NUM_BINS)
    return {"edges": edges.tolist(), "counts": counts.tolist()}
