"""A stage's metrics as charts: inline SVG pictures that take the page's colour, light or dark, with words in HTML."""

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from plumbob.console.metric_names import HELDOUT, MetricName, metric_name
from plumbob.console.report.style import PALETTE
from plumbob.trainers.metrics.step_record import StepRecord
from plumbob.trainers.online.step_metrics import ALARM

FIRST = (
    *("reward", "loss", "kl", "accuracy", "margin", "policy_loss", "value_loss", "entropy", "answer_tokens_mean"),
    "sampler_gap_max",
)
MAX_POINTS = 300
WIDTH_IN, HEIGHT_IN, POINTS = 4.3, 2.1, 10.0
"""Inches, and the size of letters: of a picture that fills 300 pixels or more, these are 10 pixels high or more."""

INK = "#010203"  # stands for the page's own text colour, which a picture drawn beforehand cannot know
TRAINING, HELD_OUT = "training", "held-out"

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """One metric over the steps.

    Attributes:
        series: "training" or "held-out" -> its points, (step, value).
    """

    name: MetricName
    series: dict[str, Points]


def charts_of(records: Sequence[StepRecord]) -> list[Chart]:
    """One for each metric that has at least two finite values, training and held-out together, the best known first.

    A chart may have a single held-out point, as records are measured at the last step alone by default.
    """
    found: dict[str, dict[str, Points]] = {}
    for name in dict.fromkeys(name for record in records for name in record.metrics if not name.startswith(ALARM)):
        values = [(float(record.step), record.metrics.get(name, math.nan)) for record in records]
        points = tuple((step, value) for step, value in values if math.isfinite(value))
        series = HELD_OUT if name.startswith(HELDOUT) else TRAINING
        if points:
            found.setdefault(name.removeprefix(HELDOUT), {})[series] = points
    drawn = [name for name, series in found.items() if any(len(points) >= 2 for points in series.values())]
    ordered = [name for name in FIRST if name in drawn] + [name for name in drawn if name not in FIRST]
    return [Chart(metric_name(records[0].stage, name), found[name]) for name in ordered]


def thinned(points: Points, limit: int = MAX_POINTS) -> Points:
    """At most `limit` points, each the mean of equally many neighbours."""
    size = math.ceil(len(points) / limit)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return tuple((sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups)


def figure_of(chart: Chart, key: str) -> str:
    """The chart as HTML: its title with the unit, what each colour is, and the picture. `key`: no other chart's."""
    unit = f' <span class="dim">{escape(chart.name.unit)}</span>' if chart.name.unit else ""
    legend = "".join(
        f'<span class="key"><i style="background:{_colour(series)}"></i>{series}</span>' for series in chart.series
    )
    shown = f"<br>{legend}" if HELD_OUT in chart.series else ""
    return f"<figure><figcaption><b>{escape(chart.name.title)}</b>{unit}{shown}</figcaption>{_svg(chart, key)}</figure>"


def _svg(chart: Chart, key: str) -> str:
    def draw(axes: Any) -> None:
        for series, points in chart.series.items():
            steps, values = zip(*thinned(points), strict=True)
            marker = "o" if series == HELD_OUT or len(points) == 1 else None
            axes.plot(steps, values, color=_colour(series), linewidth=1.4, marker=marker, markersize=4)
        _label(axes, chart.name)

    return picture(draw, key, f"{chart.name.title} over the steps")


def picture(draw: Callable[[Any], None], key: str, title: str) -> str:
    """What `draw` draws into matplotlib's axes, as SVG whose letters are letters. `key`: no other picture's."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": key,  # Names within a picture, which the page has many of, come from it.
        "font.family": "sans-serif",
        "font.size": POINTS,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.formatter.limits": (-3, 4),
        "axes.formatter.useoffset": False,
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN))
        axes = figure.add_axes((0.15, 0.21, 0.82, 0.69))
        draw(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(text.getvalue(), title)


def _label(axes: Any, name: MetricName) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if name.is_share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(visible=True, alpha=0.15)


def _for_page(svg: str, title: str) -> str:
    """As a part of an HTML page: no size, no style for the whole page, no name that another picture has too."""
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg[svg.index("<svg") :].replace(INK, "currentColor"), flags=re.S)
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)
    opening, rest = svg.split(">", 1)
    opening = re.sub(r' (width|height)="[^"]*"', "", opening)
    return f'{opening} role="img" aria-label="{escape(title)}">{rest}'


def _colour(series: str) -> str:
    return PALETTE[series == HELD_OUT]
