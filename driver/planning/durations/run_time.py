"""About how long a run takes (RunTime): each stage's seconds by what they are spent on, and what that rests on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MINUTE, HOUR, DAY = 60, 3600, 86400
SHOWN = 0.01
"""Of a stage's seconds: parts that take less are left out of its line."""


@dataclass(frozen=True)
class StageTime:
    """One stage.

    Attributes:
        parts: what takes time -> seconds: `start` of workers, and phases of the loop by their names in `metrics.jsonl`.
    """

    stage: str
    parts: Mapping[str, float]

    @property
    def total_s(self) -> float:
        return sum(self.parts.values())

    def line(self) -> str:
        shown = {name: seconds for name, seconds in self.parts.items() if seconds >= SHOWN * self.total_s}
        if len(shown) < 2:
            return f"{self.stage}: {in_words(self.total_s)}"
        return f"{self.stage}: {in_words(self.total_s)} ({', '.join(f'{n} {in_words(s)}' for n, s in shown.items())})"


@dataclass(frozen=True)
class RunTime:
    """All stages; none where nothing can be estimated, and `assumed` then says why.

    Attributes:
        assumed: sentences about what the seconds rest on, and what they leave out.
    """

    stages: tuple[StageTime, ...]
    assumed: tuple[str, ...]

    @property
    def total_s(self) -> float | None:
        return sum(stage.total_s for stage in self.stages) if self.stages else None

    def lines(self) -> list[str]:
        if self.total_s is None:
            return [f"how long it takes is not known: {sentence}" for sentence in self.assumed]
        stages = [f"  {stage.line()}" for stage in self.stages]
        return [f"about {in_words(self.total_s)} on this machine, an estimate", *stages, *self.assumed]

    def as_dict(self) -> dict[str, Any]:
        stages = {stage.stage: {"seconds": stage.total_s, "parts": dict(stage.parts)} for stage in self.stages}
        return {"seconds": self.total_s, "stages": stages, "assumed": list(self.assumed)}


def in_words(seconds: float) -> str:
    """With two digits that count, for nobody knows more."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 2 * MINUTE:
        return f"{float(f'{seconds:.2g}'):.0f} s"
    if seconds < 2 * HOUR:
        return f"{float(f'{seconds / MINUTE:.2g}'):.2g} min"
    if seconds < 2 * DAY:
        return f"{float(f'{seconds / HOUR:.2g}'):.2g} h"
    return f"{float(f'{seconds / DAY:.2g}'):.3g} days"
