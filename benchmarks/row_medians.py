"""From repeated measurements of two sides to a row of the table: medians, their ratio and its spread."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: of the work, and what it is compared with.
        unit: of both sides.
        plumbob, peer: medians over the repeats; None of a side that did not run.
        ratio: plumbob / peer; None where it could not be measured.
        target: what the ratio is to reach, or to stay within; None where there is none.
        higher_is_better: says which.
        spread: smallest and largest ratio of a repeat; None likewise.
        note: what was compared: the peer's variant, lengths, phases.
        reason: why there is no ratio; empty where there is one.
        date: when it was measured, as YYYY-MM-DD, and which of that day's measurements; empty until it is written down.
    """

    name: str
    unit: str
    plumbob: float | None
    peer: float | None
    ratio: float | None
    target: float | None
    higher_is_better: bool
    spread: tuple[float, float] | None = None
    note: str = ""
    reason: str = ""
    date: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the target holds; None where there is none, or no ratio."""
        if self.ratio is None or self.target is None:
            return None
        return self.ratio >= self.target if self.higher_is_better else self.ratio <= self.target

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"is_met": self.is_met}


def compared(
    name: str,
    unit: str,
    plumbob: Sequence[float],
    peer: Sequence[float],
    *,
    target: float | None,
    higher_is_better: bool,
    note: str = "",
) -> Row:
    """The row of two sides that were measured in turn: the n-th of each belong together.

    The ratio is that of the medians; its spread, the ratios of the pairs, between which a noisy machine moves.
    """
    if len(plumbob) != len(peer) or not plumbob:
        raise ValueError(f"{name}: {len(plumbob)} measurements against {len(peer)}")
    ratios = [ours / theirs for ours, theirs in zip(plumbob, peer, strict=True)]
    ours, theirs = median(plumbob), median(peer)
    spread = (min(ratios), max(ratios))
    return Row(name, unit, ours, theirs, ours / theirs, target, higher_is_better, spread, note)


def not_measured(name: str, unit: str, target: float | None, higher_is_better: bool, reason: str) -> Row:
    return Row(name, unit, None, None, None, target, higher_is_better, reason=reason)
