"""A stage's metrics as inline SVG pictures that take the page's colour, light or dark."""

import io
import math
import re
from collections.abc import Sequence

from plumbob.trainers.metrics.step_record import StepRecord

FIRST = (
    *("reward", "loss", "kl", "accuracy", "policy_loss", "value_loss", "entropy", "answer_tokens_mean"),
    "sampler_gap_max",
)
MAX_POINTS = 300
NUM_COLUMNS = 3
INK = "#010203"  # stands for the page's own text colour, which a picture drawn beforehand cannot know
LINE = "#2f81c4"


def curve_names(records: Sequence[StepRecord]) -> list[str]:
    """The metrics that have at least two finite values, the best known first, then as they were logged."""
    counts: dict[str, int] = {}
    for record in records:
        for name, value in record.metrics.items():
            counts[name] = counts.get(name, 0) + math.isfinite(value)
    drawn = [name for name, count in counts.items() if count >= 2]
    return [name for name in FIRST if name in drawn] + [name for name in drawn if name not in FIRST]


def thinned(points: Sequence[tuple[float, float]], limit: int = MAX_POINTS) -> list[tuple[float, float]]:
    """At most `limit` points, each the mean of equally many neighbours."""
    size = math.ceil(len(points) / limit)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def draw_curves(records: Sequence[StepRecord], names: Sequence[str]) -> str:
    """One SVG element with a small picture for each metric over the steps."""
    import matplotlib
    from matplotlib.figure import Figure

    num_rows = math.ceil(len(names) / NUM_COLUMNS)
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": records[0].stage + names[0],
        "font.family": "sans-serif",
        "font.size": 9.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.formatter.limits": (-3, 4),
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(10, 2.2 * num_rows), layout="constrained")
        for index, name in enumerate(names, start=1):
            axes = figure.add_subplot(num_rows, NUM_COLUMNS, index)
            values = [(float(record.step), record.metrics.get(name, math.nan)) for record in records]
            points = thinned([(step, value) for step, value in values if math.isfinite(value)])
            axes.plot([step for step, _ in points], [value for _, value in points], color=LINE, linewidth=1.4)
            axes.set_title(name.replace("_", " "), loc="left", fontsize=9)
            axes.grid(visible=True, alpha=0.15)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"',
        r'\1 width="100%"',
        re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1),
        count=1,
    )
