"""One self-contained `report.html` from what lies in a run's folder: metrics, samples, curves, settings."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from html import escape
from pathlib import Path
from typing import Any

from plumbob.configs.resolved_copy import RESOLVED_FILE
from plumbob.console.report.curves import charts_of, figure_of
from plumbob.console.report.html_page import html_page, html_table
from plumbob.console.report.samples import evaluation_samples, journal_samples
from plumbob.console.report.style import PALETTE
from plumbob.console.tables import duration, summary_table
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside, read_json_object
from plumbob.driver.run_folder.folder import SAMPLES_FILE, SUMMARY_FILE
from plumbob.rollout.journal import JOURNAL_FOLDER
from plumbob.trainers.metrics.sinks.jsonl import METRICS_FILE, read_metrics
from plumbob.trainers.metrics.step_record import StepRecord

REPORT_FILE = "report.html"
NUM_CURVES_SHOWN = 6


def write_report(run_dir: Path) -> Path:
    """Write the report beside what it is made of, and give its path; UserError when the folder is no run."""
    with from_outside(f"{run_dir}: cannot be looked into"):
        if not (run_dir / RESOLVED_FILE).is_file():
            raise UserError(f"{run_dir}: this is no run: it has no {RESOLVED_FILE}")
        has_summary = (run_dir / SUMMARY_FILE).exists()
    resolved = _read_json(run_dir / RESOLVED_FILE)
    summary = _read_json(run_dir / SUMMARY_FILE) if has_summary else {}
    with _made_of(run_dir / SUMMARY_FILE):
        results = [_summary_section(summary), _notes_section(summary.get("stages", {}))]
        order = list(summary.get("stages", {}))
    with _made_of(run_dir / RESOLVED_FILE):
        config = resolved.get("config", {})
        title = f"{summary.get('name') or config.get('name') or run_dir.name}"
        heading = f"<h1>{escape(title)}</h1>{_lead(summary, config)}"
    with _made_of(run_dir / SAMPLES_FILE):
        samples = evaluation_samples(run_dir / SAMPLES_FILE)
    stages = _stage_sections(run_dir, order)
    shown = f"<h2>Responses side by side</h2>{samples}" if samples else ""
    body = [heading, results[0], shown, *stages, results[1], _settings_section(resolved)]
    page = html_page(title, body)
    partial = run_dir / f"{REPORT_FILE}.partial"
    partial.write_text(page, encoding="utf-8", errors="replace")  # Half a letter, as JSON may hold, is none in UTF-8.
    return partial.replace(run_dir / REPORT_FILE)


# ------------------------------------------------------------------------------------------------------------- reading


def _made_of(path: Path) -> AbstractContextManager[None]:
    """Around what is made of a file of the run's folder, which may have been damaged since the run wrote it."""
    return from_outside(f"{path}: expected JSON, as a run writes it", "put the file back, or delete it")


def _read_json(path: Path) -> dict[str, Any]:
    return read_json_object(path, f"{path}: expected JSON, as a run writes it", "put the file back")


def _stage_sections(run_dir: Path, order: Sequence[str]) -> list[str]:
    """Of each stage that left steps, in the order of the summary: a pipeline has a folder for each stage."""
    files = sorted([*run_dir.glob(METRICS_FILE), *run_dir.glob(f"*/{METRICS_FILE}")])
    sections: list[tuple[int, str]] = []
    for file in files:
        with _made_of(file):
            records = read_metrics(file.parent)
            stage, curves = (records[0].stage, _stage_section(records)) if records else ("", "")
        if curves:
            samples = _journal_section(file.parent, is_alone=file.parent == run_dir)
            sections.append((order.index(stage) if stage in order else len(order), curves + samples))
    return [section for _, section in sorted(sections, key=lambda placed: placed[0])]


# ------------------------------------------------------------------------------------------------------------- sections


def _lead(summary: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    facts = [
        f"{_kind(config) or summary.get('kind', 'run')} run",
        f"seed {config.get('seed', summary.get('seed', 0))}",
    ]
    if "seconds_total" in summary:
        facts.append(f"{duration(summary['seconds_total'])} in all")
    if not summary:
        facts.append("not finished")
    return f'<p class="lead">{escape(" · ".join(facts))}</p>'


def _kind(config: Mapping[str, Any]) -> str | None:
    """What was asked for: of policy gradients the algorithm, as the estimator is called."""
    kind: str | None = config.get("kind")
    estimator = config["ppo"]["estimator"]["kind"] if kind == "ppo" and "ppo" in config else None
    return estimator if estimator not in (None, "gae") else kind


def _summary_section(summary: Mapping[str, Any]) -> str:
    heading, *rows = summary_table(summary)
    if not rows:
        return ""
    return f"<h2>Result</h2>{html_table(heading, rows)}"


def _stage_section(records: Sequence[StepRecord]) -> str:
    last = records[-1]
    figures = [figure_of(chart, f"{last.stage} {chart.name.title}") for chart in charts_of(records)]
    shown, more = figures[:NUM_CURVES_SHOWN], figures[NUM_CURVES_SHOWN:]
    parts = [f'<h2>{escape(last.stage)} <span class="dim">{last.step} of {last.num_steps} steps</span></h2>']
    if shown:
        parts.append(f'<div class="curves">{"".join(shown)}</div>')
    if more:
        hidden = f'<div class="curves">{"".join(more)}</div>'
        parts.append(f"<details><summary>{len(more)} more curves</summary>{hidden}</details>")
    return "".join(parts) + _phases(records)


def _phases(records: Sequence[StepRecord]) -> str:
    """Where the steps' seconds went, as one bar with its legend."""
    totals: dict[str, float] = {}
    for record in records:
        for phase, seconds in record.seconds.items():
            totals[phase] = totals.get(phase, 0.0) + (seconds if math.isfinite(seconds) else 0.0)
    whole = sum(totals.values())
    if whole <= 0:
        return ""
    colours = dict(zip(totals, itertools.cycle(PALETTE), strict=False))
    bars = [
        f'<span style="background:{colours[phase]};width:{100 * seconds / whole:.2f}%"></span>'
        for phase, seconds in totals.items()
    ]
    keys = [
        f'<span class="key"><i style="background:{colours[phase]}"></i>{escape(phase)} {duration(seconds)} '
        f'<span class="dim">({100 * seconds / whole:.0f}%)</span></span>'
        for phase, seconds in totals.items()
    ]
    return (
        f'<section><h3>Seconds per phase</h3><div class="bar">{"".join(bars)}</div>'
        f"<div>{' '.join(keys)}</div></section>"
    )


def _journal_section(folder: Path, is_alone: bool) -> str:
    """What a stage that sampled has in its journal; of a pipeline, which has an evaluation too, on demand."""
    samples = journal_samples(folder / JOURNAL_FOLDER)
    if not samples:
        return ""
    if is_alone:
        return f"<h2>Responses that it learnt from</h2>{samples}"
    return f"<details><summary>Responses that it learnt from</summary>{samples}</details>"


def _notes_section(stages: Mapping[str, Mapping[str, Any]]) -> str:
    notes = [f"{name}: {note}" for name, stage in stages.items() for note in stage.get("notes", [])]
    notes += [
        f"{name}, step {alarm['step']}: {alarm['message']}"
        for name, stage in stages.items()
        for alarm in stage.get("monitors", [])
    ]
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<h2>Notes</h2><ul>{items}</ul>" if items else ""


def _settings_section(resolved: Mapping[str, Any]) -> str:
    text = escape(json.dumps(resolved, indent=2, ensure_ascii=False))
    return f"<h2>Settings</h2><details><summary>Configuration, packages, machine</summary><pre>{text}</pre></details>"
