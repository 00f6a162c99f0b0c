"""Methods that were compared, as a table for a terminal and as a page with their curves (`comparison.html`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from plumbob.console.metric_names import MetricName
from plumbob.console.report.curves import HELD_OUT, TRAINING, Chart, figure_of, picture
from plumbob.console.report.html_page import html_page, html_table
from plumbob.console.report.style import PALETTE
from plumbob.console.tables import duration, number
from plumbob.core.disk_errors import replace_text
from plumbob.driver.comparison.comparison_row import ComparisonRow, NotCompared, Result

COMPARISON_PAGE = "comparison.html"


def _gib(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} GiB"


_COLUMNS: tuple[tuple[str, Callable[[ComparisonRow], str]], ...] = (
    ("method", lambda row: row.method),
    ("learning rate", lambda row: f"{row.learning_rate:.2g}"),
    ("trained", lambda row: f"{row.num_trained:,}"),
    ("peak memory", lambda row: _gib(row.peak_memory_gib)),
    ("planned", lambda row: _gib(row.expected_memory_gib)),
    ("records/s", lambda row: number(row.records_per_s)),
    ("loss before", lambda row: f"{row.heldout_loss_before:.4f}"),
    ("held-out loss", lambda row: f"{row.heldout_loss:.4f}"),
    ("forgetting", lambda row: "" if row.retained_growth is None else f"{row.retained_growth:.3f}"),
    ("exported", lambda row: f"{row.exported_mib:.2f} MiB"),
    ("time", lambda row: duration(row.seconds)),
    ("Wh a 1,000", lambda row: "" if row.wh_per_1000_samples is None else f"{row.wh_per_1000_samples:.3g}"),
)


def comparison_table(results: Sequence[Result]) -> tuple[list[list[str]], list[str]]:
    """A heading and a row for each method, and sentences about those that have none, and about what is not measured."""
    rows = [result for result in results if isinstance(result, ComparisonRow)]
    notes = [f"{result.method}: {result.reason}" for result in results if isinstance(result, NotCompared)]
    columns = [(title, cell) for title, cell in _COLUMNS if any(cell(row) for row in rows)]
    if rows and all(row.retained_growth is None for row in rows):
        notes.append("forgetting is not measured: retention.text=FILE names text whose perplexity is compared")
    return [[title for title, _ in columns], *([cell(row) for _, cell in columns] for row in rows)], notes


def write_comparison_page(folder: Path, stage: str, results: Sequence[Result]) -> Path:
    """Write it, with what each method's parameters bring and its loss over the steps, and give its path."""
    rows = [result for result in results if isinstance(result, ComparisonRow)]
    (heading, *lines), notes = comparison_table(results)
    body = [
        f"<h1>{escape(folder.name)}</h1>",
        f'<p class="lead">{escape(stage)} with each method, on the same records</p>',
        html_table(heading, lines),
        *(f"<p>{escape(note)}</p>" for note in notes),
        f'<div class="curves">{_by_parameters(rows)}{"".join(map(_curve, rows))}</div>' if rows else "",
    ]
    path = folder / COMPARISON_PAGE
    replace_text(path, html_page(folder.name, body))
    return path


def _by_parameters(rows: Sequence[ComparisonRow]) -> str:
    """Held-out loss by trained parameters, a point a method."""

    def draw(axes: Any) -> None:
        axes.scatter([row.num_trained for row in rows], [row.heldout_loss for row in rows], s=16, color=PALETTE[0])
        for row in rows:
            axes.annotate(row.method, (row.num_trained, row.heldout_loss), (3, 3), textcoords="offset points")
        axes.set_xscale("log")
        axes.set_xlabel("trained parameters")
        axes.grid(visible=True, alpha=0.15)

    drawn = picture(draw, "by parameters", "Held-out loss by trained parameters")
    return f"<figure><figcaption><b>Held-out loss</b> by trained parameters</figcaption>{drawn}</figure>"


def _curve(row: ComparisonRow) -> str:
    """A method's training loss, and the held-out loss before and after."""
    last = row.curve[-1][0] if row.curve else 0
    heldout = ((0.0, row.heldout_loss_before), (float(last), row.heldout_loss))
    chart = Chart(MetricName(row.method, "loss"), {TRAINING: row.curve, HELD_OUT: heldout})
    return figure_of(chart, row.method)
