"""Where a step of online RL goes, before it was made fast and as measured last, over TRL's step on its machine."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.row_medians import Row

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "step.svg"
PHASES = ("sample", "logprobs", "learn", "score", "publish", "commit")
COLOURS = ("#2f81c4", "#c8650a", "#2a9d74", "#b5527f", "#8a6fc9", "#7d7d7d")

_PHASE = re.compile(r"([a-z]+) (\d+\.\d+)")


@dataclass(frozen=True)
class Bar:
    """One step.

    Attributes:
        label: of the work and the time.
        phases: name -> seconds.
        peer_s: TRL's step on the same work and machine.
    """

    label: str
    phases: Mapping[str, float]
    peer_s: float

    def shares(self) -> dict[str, float]:
        """Phase -> its part of TRL's step."""
        return {name: self.phases.get(name, 0.0) / self.peer_s for name in PHASES}


BEFORE = {
    "rloo-3m-full-32x4-f32": Bar(
        "3 M, 2026-11-29",
        {"sample": 2.37, "logprobs": 0.51, "learn": 0.96, "score": 0.07, "publish": 0.05, "commit": 0.03},
        1.88,
    ),
    "rloo-26m-full-32x4-f32": Bar("26 M, 2026-11-29", {"sample": 7.28, "logprobs": 2.64, "learn": 3.41}, 9.71),
}
"""By the name of the row that measures the same work now: as it was before adapters were merged into vLLM's weights,
prompts shared and the sampler's log-probs taken, with 64 responses a step. On another machine than the later ones."""


def bars_of(rows: Sequence[Row]) -> list[Bar]:
    """Before and now, of each work that was measured."""
    found = []
    for name, before in BEFORE.items():
        row = next((row for row in rows if row.name.startswith(f"{name} / best") and row.peer), None)
        if row is None or row.plumbob is None or row.ratio is None:
            continue
        _, _, listed = row.note.partition("step in s: ")
        listed = listed.partition(";")[0].replace("evaluate", "logprobs")  # As rows measured before 2026-12-01 call it.
        phases = {phase: float(seconds) for phase, seconds in _PHASE.findall(listed)}
        # A step takes its phases; TRL's takes longer by the ratio of their speeds.
        found += [
            before,
            Bar(f"{before.label.partition(',')[0]}, {row.date}", phases, row.ratio * sum(phases.values())),
        ]
    return found


def draw(bars: Sequence[Bar], path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "step", "font.size": 10.0}):
        figure = Figure(figsize=(8.0, 0.6 * len(bars) + 1.2), layout="constrained")
        axes = figure.subplots()
        left = [0.0] * len(bars)
        for phase, colour in zip(PHASES, COLOURS, strict=True):
            widths = [bar.shares()[phase] for bar in bars]
            axes.barh([bar.label for bar in bars], widths, left=left, color=colour, label=phase)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.axvline(1.0, color="#1c2126", linewidth=1.2, linestyle="--", label="TRL")
        axes.invert_yaxis()
        axes.set_xlabel("a step of RLOO over TRL's on the same machine")
        axes.legend(ncols=4, frameon=False, loc="lower right", fontsize=8)
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
