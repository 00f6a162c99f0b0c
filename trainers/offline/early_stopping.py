"""Early stopping on the held-out loss (Prechelt 1998): which step is the best, and when to stop looking for another."""

from dataclasses import dataclass, replace

from plumbob.configs.settings.training import EarlyStoppingSettings


@dataclass(frozen=True)
class BestStep:
    """The best of the steps that were measured.

    Attributes:
        step: 1-based.
        loss: its held-out loss.
        num_since: measurements after it, none of which improved on it.
    """

    step: int
    loss: float
    num_since: int = 0


def next_best(best: BestStep | None, step: int, loss: float, min_delta: float) -> BestStep:
    """The best once `step` is measured too: a new one when its loss is lower by more than `min_delta`."""
    if best is None or loss < best.loss - min_delta:
        return BestStep(step, loss)
    return replace(best, num_since=best.num_since + 1)


def has_stopped(best: BestStep | None, settings: EarlyStoppingSettings | None) -> bool:
    return settings is not None and best is not None and best.num_since >= settings.patience


def is_turning_point(best: BestStep | None, step: int, settings: EarlyStoppingSettings | None) -> bool:
    """Whether this step's state must be kept: it is the best so far, or the last."""
    return best is not None and (best.step == step or has_stopped(best, settings))
