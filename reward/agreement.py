"""How well rewards predict human feedback, and how well annotators agree with one another."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbob.data.records import Ranking

FeedbackMetrics = dict[str, Any]


def pair_margins(rewards: NDArray[np.float32]) -> NDArray[np.float64]:
    """r(better) - r(worse) of all pairs of a ranking's responses; rewards [K], the best response's first."""
    return np.array([better - worse for better, worse in combinations(rewards.astype(np.float64), 2)])


def explained_variance(rewards: NDArray[np.float32], scores: NDArray[np.float64]) -> float:
    """1 - Var(score - reward) / Var(score): 1 when they differ by a constant; 0 where scores are all equal.

    A constant is left out because the calibration takes it off.
    """
    spread, error = float(scores.var()), float((scores - rewards).var())
    return 1 - error / spread if spread > 0 else 0.0


def annotator_metrics(records: Sequence[Ranking], margins: Sequence[NDArray[np.float64]]) -> FeedbackMetrics:
    """Under `annotators`, each one's `accuracy` and `num_pairs`; nothing where the records name nobody.

    Args:
        margins: of each record, `pair_margins`.
    """
    margins_by_annotator: dict[str, list[NDArray[np.float64]]] = {}
    for record, row in zip(records, margins, strict=True):
        if record.annotator is not None:
            margins_by_annotator.setdefault(record.annotator, []).append(row)
    metrics = {}
    for name, rows in sorted(margins_by_annotator.items()):
        joined = np.concatenate(rows)
        metrics[name] = {"accuracy": float(((np.sign(joined) + 1) / 2).mean()), "num_pairs": len(joined)}
    return {"annotators": metrics} if metrics else {}


def agreement_metrics(records: Sequence[Ranking]) -> FeedbackMetrics:
    """Under `annotator_agreement`, how often two annotators who compared the same two responses prefer the same one.

    `agreement` is the share over all couples of comparisons by different annotators, `num_compared` their number;
    nothing where no two annotators compared the same two responses.
    """
    preferences: dict[tuple[str, str, str], list[tuple[str, bool]]] = {}
    for record in records:
        if record.annotator is None:
            continue
        for better, worse in combinations(record.responses, 2):
            first, second = sorted((better, worse))
            preferences.setdefault((record.prompt, first, second), []).append((record.annotator, better == first))
    agreed = [
        one_prefers == other_prefers
        for given in preferences.values()
        for (one, one_prefers), (other, other_prefers) in combinations(given, 2)
        if one != other
    ]
    if not agreed:
        return {}
    return {"annotator_agreement": {"agreement": sum(agreed) / len(agreed), "num_compared": len(agreed)}}
