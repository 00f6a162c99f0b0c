"""What every reward model's scorer does: batches of alike lengths, and raw scores by the model's calibration."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from plumbob.reward.reward_models.calibration import Calibration
from plumbob.reward.scorer import Score, ScoreRequest, finite_scores

T = TypeVar("T")


def scores_in_batches(
    encoded: Sequence[T], length: Callable[[T], int], batch_size: int, forward: Callable[[list[T]], list[float]]
) -> list[float]:
    """The model's output for each row, in the order given.

    Args:
        length: of a row, in tokens.
        forward: the model's output for each row of a batch, which is padded to its longest row.
    """
    # Alike lengths together, so that little of a batch is padding; the longest first, so that memory peaks at once.
    order = sorted(range(len(encoded)), key=lambda row: length(encoded[row]), reverse=True)
    found = [0.0] * len(encoded)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        for row, score in zip(rows, forward([encoded[row] for row in rows]), strict=True):
            found[row] = score
    return found


def calibrated_scores(
    raw: Sequence[float], requests: Sequence[ScoreRequest], calibration: Calibration | None
) -> list[Score]:
    """By the calibration, or raw where there is none; the raw score is the part `raw`.

    Raises:
        ScoreError: a raw score is NaN or infinite.
    """
    finite = finite_scores(raw, requests)
    totals = finite if calibration is None else [calibration.normalized(value) for value in finite]
    return [Score(total, {"raw": value}) for total, value in zip(totals, finite, strict=True)]
